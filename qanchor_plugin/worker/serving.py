"""The engines that answer now, with their lake: loaded, warmed, and later replaced as a whole."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import LocalBackend
from qanchor_plugin.backend.engines import load_anew
from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.backend.wire import PrefixRow
from qanchor_plugin.declare import EntityRef, Modality, Profile, Settings, SourceSpec
from qanchor_plugin.errors import EngineError, LakeError, OverloadedError, WrongEngineError
from qanchor_plugin.worker.batch import Batch
from qanchor_plugin.worker.config import WorkerConfig
from qanchor_plugin.worker.metrics import BackendWatch, Metrics
from qanchor_plugin.worker.request import Row

logger = logging.getLogger(__name__)

USERS_PER_CALL = 1024
"""A batch is bounded by its tokens, not by the settings' users of a job's call."""

LATEST_QUERIES = 64
"""How many of the old engine's queries a reload reads before the new one takes over."""

WARM_QUERY = "Will this user buy again?"


class Serving:
    """One generation of engines.

    Attributes:
        engines: digest by name.
        backend: who computes.
    """

    def __init__(self, config: WorkerConfig, settings: Settings, metrics: Metrics, *, anew: bool) -> None:
        if anew:
            for name in config.engines:
                load_anew(name, settings.device)
        self.settings = replace(settings, engine=config.engines[0], users_per_batch=USERS_PER_CALL)
        self.backend = LocalBackend(self.settings, max_prefix_bytes=config.prefix_bytes)
        self.watch = BackendWatch(metrics, self.backend)
        self.engines = {name: self._warmed(name, config.warm_queries) for name in config.engines}

    def _warmed(self, name: str, queries: Sequence[str]) -> str:
        """The engine's digest, once it is loaded and its queries are read."""
        asked = [Ask(profile=_NOBODY, query=query, engine=name) for query in queries or (WARM_QUERY,)]
        self.backend.prepare(asked)
        return self.backend.engine_digest(name)

    def warm_like(self, old: "Serving") -> None:
        """What the old generation holds in memory is held here too, and its latest queries are read."""
        self.backend.keep_memory_of(old.backend)
        for name in self.engines.keys() & old.engines.keys():
            for query, soft_prompt in old.backend.latest_queries(name, LATEST_QUERIES):
                ask = Ask(profile=_NOBODY, query=query, engine=name, soft_prompt=soft_prompt)
                try:
                    self.backend.prepare([ask])
                except EngineError as error:
                    logger.info("a query of the old engine is not read ahead: %s", error)

    def lake_fault(self) -> str | None:
        """Why the lake cannot be read; None when it can."""
        try:
            self.backend.tables.read("behaviour_sequences", columns=[S.USER], where=_no_row())
        except LakeError as error:
            return str(error)
        return None

    def resolved(self, ask: Ask) -> Ask:
        """The query with its engine as this worker names it: by digest where one is given.

        Raises:
            WrongEngineError: no such engine here.
        """
        if ask.engine_digest is not None:
            names = [name for name, digest in self.engines.items() if digest == ask.engine_digest]
            if names:
                return ask if ask.engine in names else replace(ask, engine=names[0])
        elif ask.engine in self.engines:
            return ask
        raise WrongEngineError(
            f"engine {ask.engine!r} ({ask.engine_digest or 'any digest'}) is not here; this worker answers "
            f"with {self.engines}. Start one with --engine {ask.engine}, reload this one, or run feast apply."
        )

    def answer(self, batch: Batch) -> None:
        """Every request of the batch has its answers, or the error it would have had alone."""
        try:
            batch.spread(self._computed(batch, list(batch.rows.values())))
        except Exception as error:  # whatever it is, each caller must be told
            if batch.num_requests > 1 and type(error) is not LakeError:  # a lake is down for everyone
                for one in batch.alone():
                    self.answer(one)
                return
            logger.exception(
                "a batch failed", extra={"request_id": batch.pieces[0].request.header.request_id}
            )
            for piece in batch.pieces:
                piece.request.fail(error)

    def _computed(self, batch: Batch, rows: list[Row]) -> list[list[Answer | None]]:
        """(rows x asks), in two halves where the device's memory does not hold them at once."""
        asked = list(batch.asks.values())
        try:
            return self._embedded(rows, asked)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if len(rows) == 1:
                raise OverloadedError(
                    "the worker has not enough memory for one row of this request. Give it more, or "
                    "start it with fewer processes and smaller tiers.",
                    retry_after_ms=1000,
                ) from error
            logger.warning("out of memory at %d rows; halving", len(rows))
            half = len(rows) // 2
        return self._computed(batch, rows[:half]) + self._computed(batch, rows[half:])

    def _embedded(self, rows: list[Row], asked: list[Ask]) -> list[list[Answer | None]]:
        for ask in asked:
            self._check_scenario(ask)
        sent = [row for row in rows if isinstance(row, PrefixRow)]
        if sent:
            answers = self.backend.embed_prefixes(
                [one.entry for one in sent], [one.cutoff for one in sent], asked
            )
            return [list(row) for row in answers]
        named = [row for row in rows if not isinstance(row, PrefixRow)]
        return self.backend.embed([user for user, _ in named], [cutoff for _, cutoff in named], asked)

    def _check_scenario(self, ask: Ask) -> None:
        """Nothing, where the query, soft prompt and engine here are those of the registered scenario."""
        if ask.scenario_id is None:
            return
        identity = self.backend.scenario_id(ask)
        if identity != ask.scenario_id:
            raise WrongEngineError(
                f"the query {ask.query[:80]!r} is scenario {identity} here, registered was "
                f"{ask.scenario_id}: its soft prompt, profile or engine differ. Give the worker the files "
                "that were registered."
            )


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _no_row() -> object:
    import pyarrow.dataset as ds

    return ds.field(S.USER) == b""


_NOBODY = Profile(
    "warm_up",
    EntityRef(name="user", join_key="user_id", value_type="INT64"),
    [Modality("events", SourceSpec(name="none", path="none", event_at="at"), "{text}")],
)
"""A profile that no user has: queries are read against it before the first request."""
