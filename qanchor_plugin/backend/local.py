"""The backend in this very process: lake reads through delta-rs, the engine on this machine's device."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from qanchor_plugin.backend.engines import shared_engine
from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.backend.loaded_engine import LoadedEngine
from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.backend.vectors import OnlineVectors, vector_folder
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.errors import WrongEngineError
from qanchor_plugin.identity import embedding_id
from qanchor_plugin.prefix_store import LakeTables, PrefixEntry, TieredPrefixes, kv_policy
from qanchor_plugin.prefix_store.pushed import shared_pushed
from qanchor_plugin.sequence import UserSlice, slice_at

WARM_UP_SECONDS = 300.0
NUM_SLOTS = 4
"""Requests that compute at once in a process; one more is answered as busy instead of queueing."""


class LocalBackend:
    """Engines, vectors and prefixes held by this process and shared by its threads.

    Args:
        settings: the feature repo's.
        tables: the lake; made from the settings when not given.
        max_prefix_bytes: bound of the memory tier; None is the settings'.

    Attributes:
        store: the tiers that hold prefixes.
        counts: ``prefix_memory``, ``prefix_disk``, ``prefix_delta`` and ``prefix_built``: where prefixes came
            from; ``kv_loaded`` and ``kv_prefilled``: where the keys and values that are kept did;
            ``unknown_user``.
        seconds: spent on ``lake`` (histories read), ``prefix`` (found or built) and ``embed``.
        warm_up_seconds, num_slots: as the protocol says.
    """

    warm_up_seconds = WARM_UP_SECONDS
    num_slots = NUM_SLOTS

    def __init__(
        self,
        settings: Settings,
        *,
        tables: LakeTables | None = None,
        max_prefix_bytes: int | None = None,
    ) -> None:
        self.settings = settings
        self.tables = tables or LakeTables(settings.lake)
        self.reader = LakeReader(self.tables, pushed=shared_pushed(self.tables.lake))
        self.store = TieredPrefixes(settings, self.tables, max_bytes=max_prefix_bytes)
        self.memory, self.delta = self.store.memory, self.store.delta
        self.counts: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._engines: dict[str, LoadedEngine] = {}
        self._lock = threading.Lock()

    def prepare(self, asked: Sequence[Ask]) -> None:
        """The engines are loaded and are the registered ones; the queries are read, which loads the
        sentence encoder: nothing slow is left for the first request's budget.

        Raises:
            EngineError: an engine cannot be loaded.
            WrongEngineError: it is not the registered one any more.
        """
        for ask in asked:
            self._engine(ask).prepared(ask)

    def embed(
        self,
        users: Sequence[bytes],
        cutoff: int | Sequence[int],
        asked: Sequence[Ask],
        *,
        seconds: float | None = None,
    ) -> list[list[Answer | None]]:
        """Every user's answer to every query (users x asked); None for a user never seen.

        Args:
            users: serialised entity keys, distinct.
            cutoff: one instant for all, or one a user.
            asked: the queries.
            seconds: not looked at: a forward that has begun is worth its end, its answers are kept.

        Raises:
            LakeError: no lake yet, or it cannot be read.
            EngineError: an engine or soft prompt does not fit.
            WrongEngineError: an engine is not the registered one any more.
        """
        answers: list[list[Answer | None]] = [[None] * len(asked) for _ in users]
        cutoffs = dict(zip(users, [cutoff] * len(users) if isinstance(cutoff, int) else cutoff, strict=True))
        for places in _groups(asked):
            together = [asked[place] for place in places]
            for start in range(0, len(users), self.settings.users_per_batch):
                batch = users[start : start + self.settings.users_per_batch]
                for row, found in self._embed_batch(batch, cutoffs, together):
                    for place, answer in zip(places, found, strict=True):
                        answers[start + row][place] = answer
        return answers

    def close(self) -> None:
        """Nothing to give back: engines stay with the process."""

    def embed_prefixes(
        self, entries: Sequence[PrefixEntry], cutoffs: Sequence[int], asked: Sequence[Ask]
    ) -> list[list[Answer]]:
        """The answers of prefixes that were made elsewhere (entries x asked); the lake is not read.

        Raises:
            WrongEngineError: a prefix is not of a query's engine and profile.
            EngineError: as :meth:`embed`.
        """
        answers: list[dict[int, Answer]] = [{} for _ in entries]
        for places in _groups(asked):
            together = [asked[place] for place in places]
            loaded = self._engine(together[0])
            for entry in entries:
                loaded.check_made_here(together[0].profile, entry)
            for row, found in enumerate(self._answered(loaded, entries, cutoffs, together)):
                answers[row].update(zip(places, found, strict=True))
        return [[row[place] for place in range(len(asked))] for row in answers]

    def keep_memory_of(self, other: "LocalBackend") -> None:
        """What another backend of this process holds in memory is held here too, where the bounds agree:
        entries are found by identity, so those of another engine are never hit, and leave in time."""
        if self.memory.max_bytes == other.memory.max_bytes:
            self.memory = self.store.memory = other.memory

    def latest_queries(self, name: str, number: int) -> list[tuple[str, str | None]]:
        """(query, soft prompt) that a loaded engine was asked last, oldest first."""
        return self._engines[name].latest_queries(number)

    def engine_digest(self, name: str) -> str:
        """The digest of an engine that :meth:`prepare` has loaded."""
        return str(self._engines[name].engine.digest)

    def scenario_id(self, ask: Ask) -> str:
        """The identity that the query has with the engine and soft prompt that stand here."""
        _, identity = self._engine(ask).prepared(replace(ask, scenario_id=None))
        return identity

    def forget(self, users: Sequence[bytes]) -> int:
        """No prefix of these users is in this process's memory or on this machine's disk; how many were."""
        return self.store.forget(users)

    def _embed_batch(
        self, users: Sequence[bytes], cutoffs: Mapping[bytes, int], asked: Sequence[Ask]
    ) -> Iterator[tuple[int, list[Answer]]]:
        """(row of ``users``, one answer an ask) for the users that were ever seen."""
        profile, loaded = asked[0].profile, self._engine(asked[0])
        with self._timed("lake"):
            histories = self.reader.histories(profile, users)
        self.counts["unknown_user"] += len(users) - len(histories)
        rows = [row for row, user in enumerate(users) if user in histories]
        slices = [slice_at(histories[users[row]], profile, cutoffs[users[row]]) for row in rows]
        if not slices:
            return
        with self._timed("prefix"):
            entries = self._prefixes(loaded, profile, slices)
        instants = [cutoffs[entry.user] for entry in entries]
        yield from zip(rows, self._answered(loaded, entries, instants, asked), strict=True)

    def _answered(
        self,
        loaded: LoadedEngine,
        entries: Sequence[PrefixEntry],
        cutoffs: Sequence[int],
        asked: Sequence[Ask],
    ) -> list[list[Answer]]:
        """One answer an entry and ask."""
        queries = [loaded.prepared(ask) for ask in asked]
        with self._timed("embed"):
            vectors = loaded.embed(entries, [query for query, _ in queries], cutoffs)
        return [
            [
                Answer(
                    embedding=vector,
                    embedding_id=embedding_id(
                        scenario=scenario, prefix=entry.prefix_id, suffix_day=loaded.suffix_day(cutoff)
                    ),
                    cutoff=cutoff,
                    as_of=entry.as_of,
                    num_events=entry.num_events,
                )
                for vector, (_, scenario) in zip(embedded, queries, strict=True)
            ]
            for entry, cutoff, embedded in zip(entries, cutoffs, vectors, strict=True)
        ]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def _prefixes(
        self, loaded: LoadedEngine, profile: Profile, slices: Sequence[UserSlice]
    ) -> list[PrefixEntry]:
        """Each slice's prefix: from memory, this machine's disk, Delta, or built now; with keys and values
        where they pay."""
        asked = [(one.user, loaded.prefix_id(profile, one)) for one in slices]
        had = self.store.get_many(profile.name, asked, loaded.policy)
        for tier, entry in had.values():
            self.counts[f"prefix_{tier}"] += 1
            self.counts["kv_loaded"] += entry.kv is not None
        build = [one for one in slices if one.user not in had]
        self.counts["prefix_built"] += len(build)
        found = {user: entry for user, (_, entry) in had.items()}
        found |= {entry.user: entry for entry in loaded.build(profile, build)}
        self._keep(loaded, found, had)
        return [found[user] for user, _ in asked]

    def _keep(self, loaded: LoadedEngine, found: dict[bytes, PrefixEntry], had: Collection[bytes]) -> None:
        """New prefixes are held, and keys and values that were worth holding and were in no tier."""
        bare = [entry for entry in found.values() if entry.kv is None]
        for entry, kept in zip(bare, loaded.prefill(bare), strict=True):
            if kept is not None:
                self.counts["kv_prefilled"] += 1
                found[entry.user] = entry.with_kv(kept)
            if kept is not None or entry.user not in had:
                self.store.put(found[entry.user], loaded.policy, known=entry.user in had)

    def _engine(self, ask: Ask) -> LoadedEngine:
        with self._lock:
            loaded = self._engines.get(ask.engine)
            if loaded is None:
                loaded = self._engines[ask.engine] = self._load(ask.engine)
        if ask.engine_digest not in (None, loaded.engine.digest):
            raise WrongEngineError(
                f"engine {ask.engine!r} is {loaded.engine.digest} here, the scenario was registered with "
                f"{ask.engine_digest}. Put that engine back, or run feast apply and feast materialize."
            )
        return loaded

    def _load(self, name: str) -> LoadedEngine:
        engine = shared_engine(name, self.settings.device)
        folder = vector_folder(self.settings.lake, engine.encoder_id)
        vectors = OnlineVectors(folder, self.reader, engine)
        return LoadedEngine(engine, vectors, kv_policy(self.settings, engine))


def _groups(asked: Sequence[Ask]) -> list[list[int]]:
    """Places of the queries that one engine answers about one profile."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, ask in enumerate(asked):
        groups.setdefault((ask.engine, ask.profile.digest), []).append(place)
    return list(groups.values())
