"""How fast each tier answers with a user's keys and values: real files, a real Delta table, real checks."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from qanchor_plugin import schemas as S
from qanchor_plugin.backend.measured_user import random_prefix
from qanchor_plugin.extras import require
from qanchor_plugin.prefix_store import DeltaTier, DiskTier, LakeTables, MemoryTier, entry_to_row, make_entry
from qanchor_plugin.prefix_store.calibration import TierSpeed
from qanchor_plugin.prefix_store.entry import PrefixEntry

_PREFIX_ID, _PROFILE = "p" * 32, "calibrate"
_USERS = 8
Kept = Mapping[int, Mapping[str, Any]]


def least(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the quickest of ``repeats`` runs, after one that warms up."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def tier_speeds(
    engine: Any,
    kept: Kept,
    *,
    on_lake: Path,
    on_disk: Path,
    repeats: int,
    progress: Callable[[str], None],
) -> dict[str, TierSpeed]:
    """Latency and bandwidth of memory, disk (pages dropped before each read) and Delta.

    Args:
        engine: whose prefixes are stored.
        kept: by prefix length and scheme; the shortest and the longest are timed, as ``bf16``.
        on_lake, on_disk: empty folders.
        repeats: the least of so many.
        progress: told what is measured next.
    """
    entries = {length: _entries(engine, length, kept[length]["bf16"]) for length in (min(kept), max(kept))}
    readers: dict[str, Callable[[Path, list[PrefixEntry]], Callable[[int], PrefixEntry | None]]] = {
        "memory": _memory,
        "disk": _disk,
        "delta": _delta,
    }
    speeds = {}
    for tier, reader in readers.items():
        progress(f"reads from {tier}")
        measured = []
        for length, some in entries.items():
            folder = (on_disk if tier == "disk" else on_lake) / f"{tier}-{length}"
            seconds = _seconds(reader(folder, some), engine.kv_digest, repeats)
            measured.append((float(some[0].size_bytes), seconds))
        speeds[tier] = _speed(*measured)
    return speeds


def _seconds(read: Callable[[int], PrefixEntry | None], kv_digest: str, repeats: int) -> float:
    """Seconds until one user's keys and values are at hand and checked."""

    def checked() -> None:
        entry = read(next(turn) % _USERS)
        if entry is None or entry.kv is None or entry.kv_fault(kv_digest=kv_digest):
            raise RuntimeError("a prefix written for calibration could not be read back")

    turn = iter(range(1 << 30))
    return least(checked, max(repeats, 5))


def _memory(_: Path, entries: list[PrefixEntry]) -> Callable[[int], PrefixEntry | None]:
    tier = MemoryTier(sum(one.size_bytes for one in entries))
    for one in entries:
        tier.put(one)
    return lambda n: tier.get(entries[n].user, _PREFIX_ID)


def _disk(folder: Path, entries: list[PrefixEntry]) -> Callable[[int], PrefixEntry | None]:
    tier = DiskTier(folder, 4 * sum(one.size_bytes for one in entries))
    for one in entries:
        tier.put(one)
    for path in folder.rglob("*.prefix"):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # pages not yet written cannot be dropped

    def read(n: int) -> PrefixEntry | None:
        path = tier.path_of(entries[n].user, _PREFIX_ID)
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return tier.get(entries[n].user, _PREFIX_ID)

    return read


def _delta(folder: Path, entries: list[PrefixEntry]) -> Callable[[int], PrefixEntry | None]:
    deltalake = require("deltalake", purpose="Calibrating reads of the lake")
    common = {S.PROFILE: _PROFILE, S.USER_KEY: "{}", S.USER_BUCKET: 0, S.BATCH: "r", S.CUTOFF: 0}
    for one in entries:
        rows = pa.Table.from_pylist([common | entry_to_row(one)], schema=S.USER_PREFIXES)
        properties = deltalake.WriterProperties(compression="UNCOMPRESSED")
        deltalake.write_deltalake(
            folder / "user_prefixes",
            rows,
            mode="append",
            partition_by=list(S.PARTITIONED_BY["user_prefixes"]),
            writer_properties=properties,
        )
    deltalake.DeltaTable(folder / "user_prefixes").optimize.compact(writer_properties=properties)
    tier = DeltaTier(LakeTables(str(folder), max_age_seconds=3600.0))
    return lambda n: tier.get_many(_PROFILE, [(entries[n].user, _PREFIX_ID)], with_kv=True).get(
        entries[n].user
    )


def _entries(engine: Any, length: int, kept: Any) -> list[PrefixEntry]:
    prefix = random_prefix(engine, length)
    return [
        make_entry(
            user=b"user %d" % number,
            prefix_id=_PREFIX_ID,
            visible_digest=prefix.visible_digest,
            as_of=None,
            num_events=prefix.num_events,
            tokens=prefix.tokens,
            tokens_dtype=engine.token_dtype,
            positions=prefix.positions,
        ).with_kv(kept)
        for number in range(_USERS)
    ]


def _speed(small: tuple[float, float], large: tuple[float, float]) -> TierSpeed:
    """Latency and bandwidth from seconds of a small and a large read."""
    slope = (large[1] - small[1]) / (large[0] - small[0])
    if slope <= 0:
        return TierSpeed(latency_seconds=0.0, bytes_per_second=large[0] / large[1])
    latency = max(0.0, small[1] - small[0] * slope)
    return TierSpeed(latency_seconds=latency, bytes_per_second=large[0] / max(large[1] - latency, 1e-9))
