"""Behaviour to ``user_prefixes``: users whose visible events changed get a new prefix."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import StorageLevel
from pyspark.accumulators import Accumulator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.identity import prefix_identity
from qanchor_plugin.prefix_store import KVPolicy, entry_to_row, kv_policy, make_entry
from qanchor_plugin.sequence import UserSlice, slice_at
from qanchor_plugin.sequence.next_change import next_change
from spark_jobs.engines import AskedGroup, EngineRef, engine_on_driver
from spark_jobs.isolation import FailedUsers, apart, failed_users, told
from spark_jobs.progress import Progress, stage
from spark_jobs.resources import engine_profile
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour, by_user, histories, num_users, user_batches

_STOOD, _STOOD_CHANGE = "stood", "stood_change"
_RUN_BYTES = 32 << 20
_USERS_PER_PREFILL = 16
_Batches = Iterator[pa.RecordBatch]


def build(
    lake: Lake,
    settings: Settings,
    group: AskedGroup,
    *,
    end: int,
    run: str,
    vectors: str,
    progress: Progress,
    users: DataFrame | None = None,
) -> dict[str, Any]:
    """The newest prefix with ``cutoff <= end`` of the given users is the one visible at ``end``.

    Args:
        users: whom to look at (column ``user``, each once); None is everyone.
        end: microseconds since 1970 UTC.
        run: name of the rows written.
        vectors: folder of the vector snapshot.

    Returns:
        ``{"users": …, "written": …}``, and who failed (:func:`~spark_jobs.isolation.told`).
    """
    rows = behaviour(lake, group.profile)
    if users is not None:
        rows = rows.join(users.select(S.USER), on=S.USER, how="left_semi")
    num = num_users(rows) if users is None else users.count()
    if not num:
        return {"users": 0, "written": 0}
    change = F.unix_micros(S.NEXT_CHANGE_AT).alias(_STOOD_CHANGE)
    stood = newest_prefixes(lake, group, end=end).select(S.USER, F.col(S.PREFIX_ID).alias(_STOOD), change)
    ready = by_user(rows.join(stood, on=S.USER, how="left"), num, settings.users_per_batch)
    with stage(lake.spark, progress, f"prefixes of {group.profile.name}", num) as done:
        failed = failed_users(lake.spark)
        policy = kv_policy(settings, engine_on_driver(group.engine.name, group.engine.device))
        make = _builder(group, settings.users_per_batch, end, run, vectors, done, failed, policy)
        schema, profile = lake.schema("user_prefixes"), engine_profile(lake.spark, settings)
        made = ready.mapInArrow(make, schema, profile=profile).persist(StorageLevel.DISK_ONLY)
        try:
            written = made.count()
            if written:
                lake.append("user_prefixes", made.sortWithinPartitions(S.USER))
        finally:
            made.unpersist()
    return {"users": num, "written": written, **told(failed, num_users=num)}


def newest_prefixes(lake: Lake, group: AskedGroup, *, end: int) -> DataFrame:
    """Of each user: user, and prefix_id, cutoff, batch and next_change_at of the newest row with
    ``cutoff <= end``."""
    rows = prefixes_of(lake, group.profile, group.engine).where(F.unix_micros(S.CUTOFF) <= end)
    kept = F.struct(S.PREFIX_ID, S.CUTOFF, S.BATCH, S.NEXT_CHANGE_AT)
    newest = F.max_by(kept, F.struct(S.CUTOFF, S.BATCH)).alias("newest")
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
    failed: FailedUsers,
    policy: KVPolicy,
) -> Callable[[_Batches], _Batches]:
    schema = S.USER_PREFIXES

    def prefixes(rows: pa.Table) -> list[dict[str, Any]]:
        facts = _facts(rows)
        changed = []
        for one in histories(rows, group.profile):
            sliced, change = slice_at(one, group.profile, end), next_change(one, group.profile, end)
            stood = facts[one.user]
            if (prefix_id_of(group, sliced.visible_digest), change) != (
                stood[_STOOD],
                stood[_STOOD_CHANGE],
            ):
                stood[S.NEXT_CHANGE_AT] = change
                changed.append(sliced)
        return list(_prefix_rows(changed, group, facts, end=end, run=run, vectors=vectors, policy=policy))

    def make(batches: _Batches) -> _Batches:
        for rows in user_batches(batches, users_per_batch):
            made = apart(rows, prefixes, failed)
            done.add(pc.count_distinct(rows[S.USER]).as_py())
            for part in _by_bytes(made):
                yield from pa.Table.from_pylist(part, schema=schema).to_batches()

    return make


def _by_bytes(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
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
    names = (S.USER_BUCKET, _STOOD, _STOOD_CHANGE)
    columns = [rows[name].to_pylist() for name in (S.USER, *names)]
    return {user: dict(zip(names, facts, strict=True)) for user, *facts in zip(*columns, strict=True)}


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
            S.NEXT_CHANGE_AT: facts[one.user][S.NEXT_CHANGE_AT],
        }
