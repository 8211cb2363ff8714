"""Online reads of anchor views: stored rows are judged, misses answered before on-demand views run."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from feast import RepoConfig, utils
from feast.infra.online_stores.online_store import OnlineStore

from qanchor_plugin.backend import Answer
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import BackendError, InputDataError, LakeError, OnlineMissError
from qanchor_plugin.feast_ext import online_rows as R
from qanchor_plugin.feast_ext.counters import ANSWERS, LAKE_FAILURES, MISSES
from qanchor_plugin.feast_ext.declarations import is_anchor
from qanchor_plugin.feast_ext.online_misses import Answers
from qanchor_plugin.feast_ext.online_rows import Anchor, AnchorRead, Verdict
from qanchor_plugin.feast_ext.online_seams import Keeper, Misses, Watermarks
from qanchor_plugin.feast_ext.online_write import naming_the_store
from qanchor_plugin.feast_ext.push_policy import Judged, PushPolicy
from qanchor_plugin.feast_ext.waiting import in_waiting_thread

logger = logging.getLogger(__name__)

_SERVED = (Verdict.FRESH, Verdict.BEHIND)
_STORED_ANSWERS = ANSWERS.labels(R.STORED)


class AnchorReader:
    """Settles the anchor rows of a request: fresh ones stand, misses are computed, null or an error.

    Args:
        settings: clock, ``on_miss`` and the default engine.
        watermarks: ``job_runs``; where it fails, a row's own cutoff says how fresh it is.
        misses: the backend behind its budget.
        keeper: takes computed answers for write-back.
        pushes: knows which stored rows lack pushed events.
    """

    def __init__(
        self,
        settings: Settings,
        watermarks: Watermarks,
        misses: Misses,
        keeper: Keeper,
        pushes: PushPolicy,
    ) -> None:
        self._settings = settings
        self._watermarks = watermarks
        self._misses = misses
        self._keeper = keeper
        self._pushes = pushes

    def settle(self, reads: Sequence[AnchorRead]) -> None:
        """Every read's ``rows`` are answers, with status and data_as_of.

        All misses of the request go to the backend in one call, as (their users) x (their queries). Where
        it does not answer, a stale vector is served as ``stale``; with ``on_miss: null`` it is null.

        Raises:
            OnlineMissError: there are misses, and ``on_miss`` is ``error``.
        """
        now = R.micros_of(self._settings.now())
        verdicts = [self._judged(read, now) for read in reads]
        missed = [
            (read, [row for row, (verdict, _) in enumerate(judged) if verdict not in _SERVED])
            for read, judged in zip(reads, verdicts, strict=True)
        ]
        missed = [(read, rows) for read, rows in missed if rows]
        answers = self._answers(missed, now) if missed else {}
        self._recompute_behind(reads, verdicts, now)
        for read, judged in zip(reads, verdicts, strict=True):
            for row, (verdict, as_of) in enumerate(judged):
                if verdict is Verdict.FRESH:
                    read.rows[row] = R.stored_row(read, row, as_of)
                    continue
                key = (id(read), row)
                if verdict is Verdict.STALE and self._settings.on_miss == "null":
                    read.rows[row] = None, R.with_status({}, _counted(R.STALE), as_of)
                    continue
                read.rows[row] = _settled(read, row, verdict, as_of, key in answers, answers.get(key))

    def _judged(self, read: AnchorRead, now: int) -> list[tuple[Verdict, int | None]]:
        anchor = read.anchor
        complete_to = self._complete_to(anchor)
        judged = [R.judge(row, anchor, now=now, complete_to=complete_to) for row in read.rows]
        judged = list(self._pushes.overruled(read, judged, now))
        missed = [verdict for verdict, _ in judged if verdict is not Verdict.FRESH]
        _STORED_ANSWERS.inc(len(judged) - len(missed))
        for verdict, count in Counter(missed).items() if missed else ():
            MISSES.labels(verdict.value).inc(count)
        return judged

    def _recompute_behind(self, reads: Sequence[AnchorRead], verdicts: Sequence[Judged], now: int) -> None:
        if self._settings.on_miss != "compute":
            return
        for read, judged in zip(reads, verdicts, strict=True):
            rows = [row for row, (verdict, _) in enumerate(judged) if verdict is Verdict.BEHIND]
            self._pushes.behind(read, rows, lambda apart, taken: self._answers([(apart, taken)], now))

    def _complete_to(self, anchor: Anchor) -> int | None:
        if not anchor.scenario.ttl:
            return None
        try:
            return self._watermarks.complete_to(anchor.scenario.name, anchor.scenario_id)
        except LakeError as error:
            LAKE_FAILURES.inc()
            logger.warning("watermarks cannot be read, rows are judged by their own cutoff: %s", error)
            return None

    def _answers(
        self, missed: Sequence[tuple[AnchorRead, list[int]]], now: int
    ) -> dict[tuple[int, int], Answer | None]:
        """Answers of the missed (read, row) pairs; empty when they may or could not be computed."""
        if self._settings.on_miss == "null":
            return {}
        if self._settings.on_miss == "error":
            raise OnlineMissError(
                sum(len(rows) for _, rows in missed),
                scenarios=sorted({read.anchor.scenario.name for read, _ in missed}),
            )
        users = sorted({read.users[row] for read, rows in missed for row in rows})
        asked = [read.anchor.ask(self._settings.engine) for read, _ in missed]

        def paired(found: Answers) -> dict[tuple[int, int], Answer | None]:
            place = {user: number for number, user in enumerate(users)}
            return {
                (id(read), row): found[place[read.users[row]]][column]
                for column, (read, rows) in enumerate(missed)
                for row in rows
            }

        def keep(found: Answers) -> dict[tuple[int, int], Answer | None]:
            answers = paired(found)
            for read, rows in missed:
                kept = [(row, answer) for row in rows if (answer := answers[id(read), row]) is not None]
                self._keeper.keep(read, kept)
                for row, answer in kept:
                    self._pushes.remember(read, row, answer)
            return answers

        try:
            return keep(self._misses.answer(users, now, asked, late=keep))
        except BackendError:
            return {}


def _settled(
    read: AnchorRead, row: int, verdict: Verdict, as_of: int | None, answered: bool, answer: Answer | None
) -> R.OnlineRow:
    stored_at, features = read.rows[row]
    if answer is not None:
        return R.instant_of(answer.cutoff), R.answer_features(answer, _counted(R.COMPUTED))
    if answered:
        return None, R.with_status({}, _counted(R.UNKNOWN), None)
    if verdict in (Verdict.STALE, Verdict.BEHIND):
        return stored_at, R.with_status(features or {}, _counted(R.STALE), as_of)
    return None, R.with_status({}, _counted(R.MISSING), None)


def _counted(status: str) -> str:
    ANSWERS.labels(status).inc()
    return status


class AnchorReadMixin(OnlineStore):
    """Over any Feast online store: its two read steps, with anchor views answered by ``anchor_reader``."""

    anchor_reader: AnchorReader

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """The response holds every requested feature; on-demand views run after this."""
        rest = (online_features_response, full_feature_names, include_feature_view_version_metadata)
        ordinary, reads = _split(grouped_refs, join_key_values, entity_name_to_join_key_map)
        with naming_the_store(config):
            if ordinary:
                super()._read_features_per_fv(
                    config, ordinary, join_key_values, entity_name_to_join_key_map, *rest
                )
            for read in reads:
                read.rows = self.online_read(config, read.view, read.keys, read.wanted)
        if reads:
            self.anchor_reader.settle(reads)
            _populate(reads, *rest)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """The same; judging and computing happen in a thread, so the event loop goes on."""
        rest = (online_features_response, full_feature_names, include_feature_view_version_metadata)
        ordinary, reads = _split(grouped_refs, join_key_values, entity_name_to_join_key_map)
        with naming_the_store(config):
            if ordinary:
                await super()._read_features_per_fv_async(
                    config, ordinary, join_key_values, entity_name_to_join_key_map, *rest
                )
            found = await asyncio.gather(
                *(self.online_read_async(config, read.view, read.keys, read.wanted) for read in reads)
            )
        if reads:
            for read, rows in zip(reads, found, strict=True):
                read.rows = rows
            await in_waiting_thread(self.anchor_reader.settle, reads)
            _populate(reads, *rest)

    async def online_read_async(self, config: RepoConfig, table: Any, *args: Any, **kwargs: Any) -> Any:
        """The store's own asynchronous read; where it has none (SQLite), the ordinary one in a thread."""
        if super().online_read_async.__func__ is OnlineStore.online_read_async:  # type: ignore[attr-defined]
            return await asyncio.to_thread(self.online_read, config, table, *args, **kwargs)
        return await super().online_read_async(config, table, *args, **kwargs)

    async def close(self) -> None:
        """Connections of asynchronous reads are closed: Feast's Redis store leaves its own open."""
        await super().close()
        client = getattr(self, "_client_async", None)
        if client is not None:
            await client.aclose()
            self._client_async = None


def reading_anchors(store: OnlineStore, reader: AnchorReader) -> OnlineStore:
    """The same online store object, of a class that answers anchor views through ``reader``."""
    base = type(store)
    if not issubclass(base, AnchorReadMixin):
        store.__class__ = type(base.__name__, (AnchorReadMixin, base), {"__module__": base.__module__})
    store.anchor_reader = reader  # type: ignore[attr-defined]
    return store


def _split(
    grouped_refs: list[Any], join_key_values: dict[str, Any], entity_name_to_join_key_map: dict[str, str]
) -> tuple[list[Any], list[AnchorRead]]:
    ordinary: list[Any] = []
    anchors: list[Any] = []
    for ref in grouped_refs:
        (anchors if is_anchor(ref[0]) else ordinary).append(ref)
    if anchors:
        _check_keys(join_key_values)
    reads = []
    for view, requested in anchors:
        values, indexes, num_rows = utils._get_unique_entities(
            view, join_key_values, entity_name_to_join_key_map
        )
        keys = utils._get_entity_key_protos(values)
        reads.append(
            AnchorRead(
                view=view,
                anchor=Anchor.of(view),
                requested=tuple(requested),
                keys=keys,
                users=R.UserKeys(keys),
                indexes=indexes,
                num_rows=num_rows,
            )
        )
    return ordinary, reads


def _check_keys(join_key_values: dict[str, Any]) -> None:
    for name, values in join_key_values.items():
        empty = [row for row, value in enumerate(values) if value.WhichOneof("val") is None]
        if empty:
            raise InputDataError(
                f"entity rows {empty[:10]} have no {name!r} (null). Give each row its key, or leave it out."
            )


def _populate(reads: Sequence[AnchorRead], response: Any, full_names: bool, with_versions: bool) -> None:
    for read in reads:
        utils._populate_response_from_feature_data(
            list(read.requested),
            read.rows,
            read.indexes,
            response,
            full_names,
            read.view,
            read.num_rows,
            with_versions,
        )


__all__ = ["AnchorReadMixin", "AnchorReader", "naming_the_store", "reading_anchors"]
