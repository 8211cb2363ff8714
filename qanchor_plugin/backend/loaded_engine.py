"""An engine as a backend holds it: with its vectors, and the queries it has tokenised."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from qanchor_plugin.backend.protocol import Ask
from qanchor_plugin.backend.vectors import OnlineVectors
from qanchor_plugin.declare import Profile
from qanchor_plugin.errors import WrongEngineError
from qanchor_plugin.identity import prefix_identity, scenario_identity
from qanchor_plugin.prefix_store import KVPolicy, PrefixEntry, make_entry
from qanchor_plugin.sequence import UserSlice
from qanchor_plugin.sequence.slice import MICROS_PER_DAY

MAX_PREPARED_QUERIES = 1024


class LoadedEngine:
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

    def check_made_here(self, profile: Profile, entry: PrefixEntry) -> None:
        """Nothing, where this engine reads the profile as the prefix's maker did.

        Raises:
            WrongEngineError: it is of another engine or profile.
        """
        expected = prefix_identity(
            profile_digest=profile.digest,
            prefix_digest=self.engine.prefix_digest,
            visible_digest=entry.visible_digest,
        )
        if entry.prefix_id != expected or entry.tokens_dtype != self.engine.token_dtype:
            raise WrongEngineError(
                f"a prefix is {entry.prefix_id} ({entry.tokens_dtype}); this engine and profile "
                f"{profile.name!r} make {expected} ({self.engine.token_dtype}). Run one engine on both sides."
            )

    def suffix_day(self, cutoff: int) -> int | None:
        """The day that an embedding's identity names, for an engine whose suffix knows the time."""
        return cutoff // MICROS_PER_DAY if self.engine.suffix_knows_time else None

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

    def latest_queries(self, number: int) -> list[tuple[str, str | None]]:
        """(query, soft prompt) of those asked last, oldest first."""
        with self._lock:
            return list(self._prepared)[-number:]

    def _prepare(self, ask: Ask) -> tuple[Any, str | None]:
        from qanchor_plugin.engine import SoftPrompt

        soft_prompt = None if ask.soft_prompt is None else SoftPrompt.load(ask.soft_prompt)
        digest = None if soft_prompt is None else soft_prompt.digest
        return self.engine.prepare_query(ask.query, soft_prompt), digest

    def prefill(self, entries: Sequence[PrefixEntry]) -> list[Any]:
        """Keys and values of those that memory or disk should hold them of, None for the others."""
        prefixes = [self.as_prefix(entry) for entry in entries]
        with self._lock:
            return list(self.policy.prefill(self.engine, prefixes, "memory", "disk"))

    def embed(self, entries: Sequence[PrefixEntry], queries: Sequence[Any], cutoffs: Sequence[int]) -> Any:
        """(P, Q, 128) float32, from the keys and values that stand beside the prefixes where any do."""
        prefixes = [self.as_prefix(entry) for entry in entries]
        kept = [None if entry.kv is None else entry.kv.kept for entry in entries]
        with self._lock:
            return self.engine.embed(prefixes, queries, cutoffs, kept=kept)
