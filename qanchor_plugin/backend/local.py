"""The backend in this very process: lake reads through delta-rs, the engine on this machine's device."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from qanchor_plugin.backend.engines import shared_engine
from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.backend.vectors import OnlineVectors, vector_folder
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.errors import BackendError
from qanchor_plugin.identity import embedding_id, prefix_identity, scenario_identity
from qanchor_plugin.prefix_store import (
    KVPolicy,
    LakeTables,
    PrefixEntry,
    TieredPrefixes,
    kv_policy,
    make_entry,
)
from qanchor_plugin.sequence import UserSlice, slice_at
from qanchor_plugin.sequence.slice import MICROS_PER_DAY

MAX_PREPARED_QUERIES = 1024


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
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tables: LakeTables | None = None,
        max_prefix_bytes: int | None = None,
    ) -> None:
        self.settings = settings
        self.tables = tables or LakeTables(settings.lake)
        self.reader = LakeReader(self.tables)
        self.store = TieredPrefixes(settings, self.tables, max_bytes=max_prefix_bytes)
        self.memory, self.delta = self.store.memory, self.store.delta
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

    def embed(self, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask]) -> list[list[Answer | None]]:
        """Every user's answer to every query (users x asked); None for a user never seen.

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

    def forget(self, users: Sequence[bytes]) -> int:
        """No prefix of these users is in this process's memory or on this machine's disk; how many were."""
        return self.store.forget(users)

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
        kept = [None if entry.kv is None else entry.kv.kept for entry in entries]
        vectors = loaded.embed(prefixes, [query for query, _ in queries], [cutoff] * len(prefixes), kept=kept)
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

    def _keep(self, loaded: "_LoadedEngine", found: dict[bytes, PrefixEntry], had: Collection[bytes]) -> None:
        """New prefixes are held, and keys and values that were worth holding and were in no tier."""
        bare = [entry for entry in found.values() if entry.kv is None]
        for entry, kept in zip(bare, loaded.prefill(bare), strict=True):
            if kept is not None:
                self.counts["kv_prefilled"] += 1
                found[entry.user] = entry.with_kv(kept)
            if kept is not None or entry.user not in had:
                self.store.put(found[entry.user], loaded.policy)

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
        vectors = OnlineVectors(folder, self.reader, engine)
        return _LoadedEngine(engine, vectors, kv_policy(self.settings, engine))


class _LoadedEngine:
    """An engine with its vectors and the queries it has tokenised; one forward at a time."""

    def __init__(self, engine: Any, vectors: OnlineVectors, policy: KVPolicy) -> None:
        self.engine = engine
        self.vectors = vectors
        self.policy = policy
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

    def prefill(self, entries: Sequence[PrefixEntry]) -> list[Any]:
        """Keys and values of those that memory or disk should hold them of, None for the others."""
        with self._lock:
            return list(
                self.policy.prefill(
                    self.engine, [self.as_prefix(entry) for entry in entries], "memory", "disk"
                )
            )

    def embed(
        self, prefixes: Sequence[Any], queries: Sequence[Any], cutoffs: Sequence[int], *, kept: Sequence[Any]
    ) -> Any:
        """(P, Q, 128) float32."""
        with self._lock:
            return self.engine.embed(prefixes, queries, cutoffs, kept=kept)
