"""The tiers together: memory, this machine's disk, Delta; what none has is for the caller to compute."""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence

from qanchor_plugin.declare import Settings
from qanchor_plugin.prefix_store.delta import DeltaTier
from qanchor_plugin.prefix_store.disk import DiskTier
from qanchor_plugin.prefix_store.entry import PrefixEntry
from qanchor_plugin.prefix_store.kv_policy import KVPolicy
from qanchor_plugin.prefix_store.lake_tables import LakeTables
from qanchor_plugin.prefix_store.memory import MemoryTier

Key = tuple[bytes, str]


class TieredPrefixes:
    """Prefixes by user and identity; what a lower tier had is held by the tiers above it afterwards.

    Args:
        settings: the bounds and the disk tier's folder.
        tables: the lake.
        max_bytes: of the memory tier; None is the settings'.

    Attributes:
        memory, disk, delta: the tiers; ``disk`` is None without a folder.
    """

    def __init__(self, settings: Settings, tables: LakeTables, *, max_bytes: int | None = None) -> None:
        self.memory = MemoryTier(settings.prefix_memory_bytes if max_bytes is None else max_bytes)
        folder = settings.prefix_folder
        self.disk = None if folder is None else DiskTier(folder, settings.prefix_folder_bytes)
        self.delta = DeltaTier(tables)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """What happened so far, by ``(tier, outcome)``.

        Outcomes: hit, miss, corrupt, foreign, bytes; kv_hit, kv_corrupt, kv_foreign (soft tokens sound, keys
        and values not); kv_load and kv_recompute (what was chosen for keys and values that were there). The
        disk also counts evicted and failed_writes.
        """
        with self._lock:
            told = Counter(self._counts)
        told["memory", "corrupt"] = self.memory.num_corrupt
        told["delta", "corrupt"] = self.delta.num_corrupt
        for outcome, number in ({} if self.disk is None else self.disk.counts).items():
            told["disk", outcome] = number
        return told

    def get_many(
        self, profile: str, asked: Sequence[Key], policy: KVPolicy
    ) -> dict[bytes, tuple[str, PrefixEntry]]:
        """By user, the tier that had the prefix and the entry; users of no tier are absent.

        An entry carries keys and values where they are sound, of the policy's engine, and quicker to load
        than to prefill. The others have none.

        Args:
            profile: name of the profile.
            asked: (user, prefix identity), one a user.
            policy: whose keys and values are loaded, and when.

        Raises:
            LakeError: the Delta table is there and cannot be read.
        """
        found: dict[bytes, tuple[str, PrefixEntry]] = {}
        missing = list(asked)
        for tier in ("memory", "disk", "delta"):
            if not missing or (tier == "disk" and self.disk is None):
                continue
            had = self._read(tier, profile, missing, with_kv=policy.reads("delta"))
            for user, stored in had.items():
                found[user] = (tier, self._with_usable_kv(tier, stored, policy))
            missing = [key for key in missing if key[0] not in had]
        for tier, entry in found.values():
            if tier != "memory":
                self._hold(entry, policy, on_disk=tier == "delta")
        return found

    def put(self, entry: PrefixEntry, policy: KVPolicy) -> None:
        """A prefix computed now is held in memory and on the disk, keys and values where they pay."""
        self._hold(entry, policy, on_disk=True)

    def forget(self, users: Iterable[bytes]) -> int:
        """No prefix of these users is in memory or on this machine's disk; how many were. Delta's rows are
        the lake's own matter."""
        gone = list(users)
        return self.memory.forget(gone) + (0 if self.disk is None else self.disk.forget(gone))

    def _read(
        self, tier: str, profile: str, keys: Sequence[Key], *, with_kv: bool
    ) -> dict[bytes, PrefixEntry]:
        if tier == "delta":
            had = self.delta.get_many(profile, keys, with_kv=with_kv)
        else:
            one_tier = self.memory if tier == "memory" or self.disk is None else self.disk
            had = {key[0]: entry for key in keys if (entry := one_tier.get(*key)) is not None}
        with self._lock:
            self._counts[tier, "hit"] += len(had)
            self._counts[tier, "miss"] += len(keys) - len(had)
        return had

    def _with_usable_kv(self, tier: str, entry: PrefixEntry, policy: KVPolicy) -> PrefixEntry:
        """The entry, without keys and values that are not to be used; each reason is counted."""
        kv, soft_bytes = entry.kv, entry.tokens.nbytes + entry.positions.nbytes
        if kv is None:
            self._count(tier, soft_bytes)
            return entry
        if not policy.loads(tier, kv.kept.scheme, len(entry.tokens)):
            self._count(tier, soft_bytes, "kv_recompute")
            return entry.with_kv(None)
        fault = entry.kv_fault(kv_digest=policy.kv_digest)
        if fault is None:
            self._count(tier, entry.size_bytes, "kv_hit", "kv_load")
            return entry
        self._count(tier, soft_bytes, f"kv_{fault}", "kv_recompute")
        bare = entry.with_kv(None)
        if tier == "memory":
            self.memory.put(bare)
        elif tier == "disk" and self.disk is not None:
            self.disk.put(bare)
        return bare

    def _hold(self, entry: PrefixEntry, policy: KVPolicy, *, on_disk: bool) -> None:
        self.memory.put(entry)
        if self.disk is None or not on_disk:
            return
        kv = entry.kv
        pays = kv is not None and policy.loads("disk", kv.kept.scheme, len(entry.tokens))
        self.disk.put(entry if pays else entry.with_kv(None))

    def _count(self, tier: str, num_bytes: int, *outcomes: str) -> None:
        with self._lock:
            self._counts[tier, "bytes"] += num_bytes
            for outcome in outcomes:
                self._counts[tier, outcome] += 1
