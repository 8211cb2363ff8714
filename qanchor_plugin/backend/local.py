"""The backend in this very process: lake reads through delta-rs, the engine on this machine's device."""

import itertools
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from qanchor_plugin.backend.engines import shared_engine
from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.backend.vectors import OnlineVectors, vector_folder
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.errors import BackendError
from qanchor_plugin.identity import embedding_id, prefix_identity, scenario_identity
from qanchor_plugin.prefix_store import DeltaTier, LakeTables, MemoryTier, PrefixEntry, make_entry
from qanchor_plugin.sequence import UserSlice, slice_at
from qanchor_plugin.sequence.slice import MICROS_PER_DAY

DEFAULT_PREFIX_BYTES = 256 * 1024 * 1024
MAX_PREPARED_QUERIES = 1024
WARM_UP_SECONDS = 300.0
NUM_SLOTS = 4
"""Requests that compute at once in a process; one more is answered as busy instead of queueing."""


class LocalBackend:
    """Engines, vectors and prefixes held by this process and shared by its threads.

    Args:
        settings: the feature repo's.
        tables: the lake; made from the settings when not given.
        max_prefix_bytes: bound of the memory tier.

    Attributes:
        counts: ``prefix_memory``, ``prefix_delta`` and ``prefix_built``: where prefixes came from;
            ``unknown_user``.
        warm_up_seconds, num_slots: as the protocol says.
    """

    warm_up_seconds = WARM_UP_SECONDS
    num_slots = NUM_SLOTS

    def __init__(
        self,
        settings: Settings,
        *,
        tables: LakeTables | None = None,
        max_prefix_bytes: int = DEFAULT_PREFIX_BYTES,
    ) -> None:
        self.settings = settings
        self.tables = tables or LakeTables(settings.lake)
        self.reader = LakeReader(self.tables)
        self.memory = MemoryTier(max_prefix_bytes)
        self.delta = DeltaTier(self.tables)
        self.counts: Counter[str] = Counter()
        self._engines: dict[str, _LoadedEngine] = {}
        self._lock = threading.Lock()

    def prepare(self, asked: Sequence[Ask]) -> None:
        """The engines are loaded and are the registered ones; the queries are read, which loads the
        sentence encoder: nothing slow is left for the first request's budget.

        Raises:
            EngineError: an engine cannot be loaded.
            BackendError: it is not the registered one any more.
        """
        for ask in asked:
            self._engine(ask).prepared(ask)

    def embed(
        self, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask], *, seconds: float | None = None
    ) -> list[list[Answer | None]]:
        """Every user's answer to every query (users x asked); None for a user never seen.

        ``seconds`` is not looked at: a forward that has begun is worth its end, its answers are kept.

        Raises:
            LakeError: no lake yet, or it cannot be read.
            EngineError: an engine or soft prompt does not fit.
            BackendError: an engine is not the registered one any more.
        """
        answers: list[list[Answer | None]] = [[None] * len(asked) for _ in users]
        groups: dict[tuple[str, str], list[int]] = {}
        for place, ask in enumerate(asked):
            groups.setdefault((ask.engine, ask.profile.digest), []).append(place)
        for places in groups.values():
            together = [asked[place] for place in places]
            for start in range(0, len(users), self.settings.users_per_batch):
                batch = users[start : start + self.settings.users_per_batch]
                for row, found in self._embed_batch(batch, cutoff, together):
                    for place, answer in zip(places, found, strict=True):
                        answers[start + row][place] = answer
        return answers

    def close(self) -> None:
        """Nothing to give back: engines stay with the process."""

    def _embed_batch(
        self, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask]
    ) -> Iterator[tuple[int, list[Answer]]]:
        """(row of ``users``, one answer an ask) for the users that were ever seen."""
        profile, loaded = asked[0].profile, self._engine(asked[0])
        histories = self.reader.histories(profile, users)
        self.counts["unknown_user"] += len(users) - len(histories)
        slices = [slice_at(histories[user], profile, cutoff) for user in users if user in histories]
        if not slices:
            return
        entries = self._prefixes(loaded, profile, slices)
        prefixes = [loaded.as_prefix(entry) for entry in entries]
        queries = [loaded.prepared(ask) for ask in asked]
        vectors = loaded.embed(prefixes, [query for query, _ in queries], [cutoff] * len(prefixes))
        row_of = {user: row for row, user in enumerate(users)}
        day = cutoff // MICROS_PER_DAY if loaded.engine.suffix_knows_time else None
        for entry, embedded in zip(entries, vectors, strict=True):
            yield (
                row_of[entry.user],
                [
                    Answer(
                        embedding=vector,
                        embedding_id=embedding_id(scenario=scenario, prefix=entry.prefix_id, suffix_day=day),
                        cutoff=cutoff,
                        as_of=entry.as_of,
                        num_events=entry.num_events,
                    )
                    for vector, (_, scenario) in zip(embedded, queries, strict=True)
                ],
            )

    def _prefixes(
        self, loaded: "_LoadedEngine", profile: Profile, slices: Sequence[UserSlice]
    ) -> list[PrefixEntry]:
        """Each slice's prefix: from memory, else from Delta, else built now."""
        asked = [(one.user, loaded.prefix_id(profile, one)) for one in slices]
        found = {user: self.memory.get(user, prefix_id) for user, prefix_id in asked}
        self.counts["prefix_memory"] += sum(entry is not None for entry in found.values())
        missing = [(user, prefix_id) for user, prefix_id in asked if found[user] is None]
        stored = self.delta.get_many(profile.name, missing)
        self.counts["prefix_delta"] += len(stored)
        build = [one for one in slices if found[one.user] is None and one.user not in stored]
        self.counts["prefix_built"] += len(build)
        for entry in itertools.chain(stored.values(), loaded.build(profile, build)):
            self.memory.put(entry)
            found[entry.user] = entry
        return [kept for user, _ in asked if (kept := found[user]) is not None]

    def _engine(self, ask: Ask) -> "_LoadedEngine":
        with self._lock:
            loaded = self._engines.get(ask.engine)
            if loaded is None:
                loaded = self._engines[ask.engine] = self._load(ask.engine)
        if ask.engine_digest not in (None, loaded.engine.digest):
            raise BackendError(
                f"engine {ask.engine!r} is {loaded.engine.digest} here, the scenario was registered with "
                f"{ask.engine_digest}. Put that engine back, or run feast apply and feast materialize."
            )
        return loaded

    def _load(self, name: str) -> "_LoadedEngine":
        engine = shared_engine(name, self.settings.device)
        folder = vector_folder(self.settings.lake, engine.encoder_id)
        return _LoadedEngine(engine, OnlineVectors(folder, self.reader, engine))


class _LoadedEngine:
    """An engine with its vectors and the queries it has tokenised; one forward at a time."""

    def __init__(self, engine: Any, vectors: OnlineVectors) -> None:
        self.engine = engine
        self.vectors = vectors
        self._lock = threading.Lock()
        self._prepared: OrderedDict[tuple[str, str | None], tuple[Any, str | None]] = OrderedDict()

    def prefix_id(self, profile: Profile, one: UserSlice) -> str:
        """The identity of the prefix that this slice has."""
        return prefix_identity(
            profile_digest=profile.digest,
            prefix_digest=self.engine.prefix_digest,
            visible_digest=one.visible_digest,
        )

    def build(self, profile: Profile, slices: Sequence[UserSlice]) -> list[PrefixEntry]:
        """New prefixes of these slices, in order."""
        if not slices:
            return []
        with self._lock:
            built = self.engine.build_prefixes(slices, self.vectors)
        return [
            make_entry(
                user=one.user,
                prefix_id=self.prefix_id(profile, one),
                visible_digest=one.visible_digest,
                as_of=one.as_of,
                num_events=one.num_events,
                tokens=prefix.tokens,
                tokens_dtype=self.engine.token_dtype,
                positions=prefix.positions,
            )
            for one, prefix in zip(slices, built, strict=True)
        ]

    def as_prefix(self, entry: PrefixEntry) -> Any:
        """The engine's own record of a stored prefix."""
        from qanchor_plugin.engine import Prefix

        return Prefix(
            user=entry.user,
            visible_digest=entry.visible_digest,
            as_of=entry.as_of,
            num_events=entry.num_events,
            tokens=entry.tokens,
            positions=entry.positions,
        )

    def prepared(self, ask: Ask) -> tuple[Any, str]:
        """The tokenised query, and the scenario identity its answers carry."""
        key = (ask.query, ask.soft_prompt)
        with self._lock:
            known = self._prepared.get(key)
            if known is None:
                known = self._prepared[key] = self._prepare(ask)
            self._prepared.move_to_end(key)
            while len(self._prepared) > MAX_PREPARED_QUERIES:
                self._prepared.popitem(last=False)
        query, soft_prompt_digest = known
        return query, ask.scenario_id or scenario_identity(
            profile_digest=ask.profile.digest,
            engine_digest=self.engine.digest,
            query=ask.query,
            soft_prompt_digest=soft_prompt_digest,
        )

    def _prepare(self, ask: Ask) -> tuple[Any, str | None]:
        from qanchor_plugin.engine import SoftPrompt

        soft_prompt = None if ask.soft_prompt is None else SoftPrompt.load(ask.soft_prompt)
        digest = None if soft_prompt is None else soft_prompt.digest
        return self.engine.prepare_query(ask.query, soft_prompt), digest

    def embed(self, prefixes: Sequence[Any], queries: Sequence[Any], cutoffs: Sequence[int]) -> Any:
        """(P, Q, 128) float32."""
        with self._lock:
            return self.engine.embed(prefixes, queries, cutoffs)
