"""Behaviour to ``user_prefixes``: users whose visible events changed get a new prefix."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.accumulators import Accumulator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.identity import prefix_identity
from qanchor_plugin.prefix_store import KVPolicy, entry_to_row, kv_policy, make_entry
from qanchor_plugin.sequence import UserSlice, slice_at
from spark_jobs.engines import AskedGroup, EngineRef, engine_on_driver
from spark_jobs.progress import Progress, stage
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour, by_user, histories, num_users, user_batches

_STOOD = "stood"
_RUN_BYTES = 32 << 20
_USERS_PER_PREFILL = 16
_Batches = Iterator[pa.RecordBatch]


def build(
    lake: Lake, settings: Settings, group: AskedGroup, *, end: int, run: str, vectors: str, progress: Progress
) -> dict[str, int]:
    """Every user's newest prefix with ``cutoff <= end`` is the one visible at ``end``.

    Args:
        end: microseconds since 1970 UTC.
        run: name of the rows written.
        vectors: folder of the vector snapshot.

    Returns:
        ``{"users": …, "written": …}``.
    """
    rows = behaviour(lake, group.profile)
    users = num_users(rows)
    if not users:
        return {"users": 0, "written": 0}
    stood = newest_prefixes(lake, group, end=end).select(S.USER, F.col(S.PREFIX_ID).alias(_STOOD))
    ready = by_user(rows.join(stood, on=S.USER, how="left"), users, settings.users_per_batch)
    with stage(lake.spark, progress, f"prefixes of {group.profile.name}", users) as done:
        policy = kv_policy(settings, engine_on_driver(group.engine.name, group.engine.device))
        make = _builder(group, settings.users_per_batch, end, run, vectors, done, policy)
        made = ready.mapInArrow(make, lake.schema("user_prefixes")).persist(StorageLevel.DISK_ONLY)
        try:
            written = made.count()
            if written:
                lake.append("user_prefixes", made.sortWithinPartitions(S.USER))
        finally:
            made.unpersist()
    return {"users": users, "written": written}


def newest_prefixes(lake: Lake, group: AskedGroup, *, end: int) -> DataFrame:
    """Of each user: user, prefix_id, cutoff and batch of the newest row with ``cutoff <= end``."""
    rows = prefixes_of(lake, group.profile, group.engine).where(F.unix_micros(S.CUTOFF) <= end)
    newest = F.max_by(F.struct(S.PREFIX_ID, S.CUTOFF, S.BATCH), F.struct(S.CUTOFF, S.BATCH)).alias("newest")
    return rows.groupBy(S.USER).agg(newest).select(S.USER, "newest.*")


def prefixes_of(lake: Lake, profile: Profile, engine: EngineRef) -> DataFrame:
    """The stored prefixes of a profile that this engine can read."""
    rows = lake.read("user_prefixes")
    return rows.where((F.col(S.PROFILE) == profile.name) & (F.col(S.PREFIX_DIGEST) == engine.prefix_digest))


def prefix_id_of(group: AskedGroup, visible_digest: str) -> str:
    """Identity of the prefix of what is visible."""
    return prefix_identity(
        profile_digest=group.profile.digest,
        prefix_digest=group.engine.prefix_digest,
        visible_digest=visible_digest,
    )


def _builder(
    group: AskedGroup,
    users_per_batch: int,
    end: int,
    run: str,
    vectors: str,
    done: Accumulator[int],
    policy: KVPolicy,
) -> Callable[[_Batches], _Batches]:
    schema = S.USER_PREFIXES

    def make(batches: _Batches) -> _Batches:
        for rows in user_batches(batches, users_per_batch):
            facts = _facts(rows)
            slices = [slice_at(one, group.profile, end) for one in histories(rows, group.profile)]
            changed = [
                one for one in slices if prefix_id_of(group, one.visible_digest) != facts[one.user][_STOOD]
            ]
            made = _prefix_rows(changed, group, facts, end=end, run=run, vectors=vectors, policy=policy)
            for part in _by_bytes(made):
                yield from pa.Table.from_pylist(part, schema=schema).to_batches()
            done.add(len(slices))

    return make


def _by_bytes(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows in runs of at most ``_RUN_BYTES`` (one row at least): keys and values are megabytes a user."""
    run: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        run.append(row)
        size += len(row[S.TOKENS]) + len(row[S.KV] or b"")
        if size >= _RUN_BYTES:
            yield run
            run, size = [], 0
    if run:
        yield run


def _facts(rows: pa.Table) -> dict[bytes, dict[str, Any]]:
    """Bucket and standing prefix of each user."""
    columns = [rows[name].to_pylist() for name in (S.USER, S.USER_BUCKET, _STOOD)]
    return {
        user: {S.USER_BUCKET: bucket, _STOOD: stood} for user, bucket, stood in zip(*columns, strict=True)
    }


def _prefix_rows(
    slices: list[UserSlice],
    group: AskedGroup,
    facts: Mapping[bytes, Mapping[str, Any]],
    *,
    end: int,
    run: str,
    vectors: str,
    policy: KVPolicy,
) -> Iterator[dict[str, Any]]:
    if not slices:
        return
    from spark_jobs.executor import engine_of, snapshot_at

    ref = group.engine
    engine = engine_of(ref.name, ref.device, ref.digest)
    prefixes = engine.build_prefixes(slices, snapshot_at(vectors))
    kept: list[Any] = []
    for row, (one, prefix) in enumerate(zip(slices, prefixes, strict=True)):
        if row % _USERS_PER_PREFILL == 0:
            kept = policy.prefill(engine, prefixes[row : row + _USERS_PER_PREFILL], "delta")
        entry = make_entry(
            user=one.user,
            prefix_id=prefix_id_of(group, one.visible_digest),
            visible_digest=one.visible_digest,
            as_of=one.as_of,
            num_events=one.num_events,
            tokens=prefix.tokens,
            tokens_dtype=engine.token_dtype,
            positions=prefix.positions,
        )
        yield entry_to_row(entry.with_kv(kept[row % _USERS_PER_PREFILL])) | {
            S.PROFILE: group.profile.name,
            S.USER_KEY: one.user_key,
            S.USER_BUCKET: facts[one.user][S.USER_BUCKET],
            S.BATCH: run,
            S.CUTOFF: end,
            S.PREFIX_DIGEST: ref.prefix_digest,
        }
