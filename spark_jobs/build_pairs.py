"""Behaviour to ``useru_pairs``: pre-training pairs of every user, shard by shard, in one commit."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from delta.tables import DeltaTable
from pyspark import StorageLevel
from pyspark.accumulators import Accumulator, AccumulatorParam
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import IntegerType, StructField, StructType

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.training.useru import (
    PairCounts,
    PairPlan,
    build_pairs,
    pairs_table,
    requests_of,
    shard_of,
)
from qanchor_plugin.training.useru.endpoint import CostEstimate, EndpointGenerator
from qanchor_plugin.training.useru.generators import GeneratorRef, summed
from spark_jobs.failures import named_failures
from spark_jobs.lock import only_run
from spark_jobs.progress import Progress, default_progress, stage
from spark_jobs.runs import FAILED, JobRow, RunClock, write_runs
from spark_jobs.session import in_utc
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour, histories, num_users

JOB = "pairs"
ESTIMATES = "num_requests long, num_cached long, prompt_tokens long, answer_tokens long, dollars double"
_Make = Callable[[pa.Table, pa.Table], pa.Table]


@dataclass(frozen=True, kw_only=True)
class PairsReport:
    """What a build did.

    Attributes:
        run: its id.
        counts: what became of what was asked.
        num_shards: blocks of users, each a partition of the table.
        seconds: how long it took.
    """

    run: str
    counts: PairCounts
    num_shards: int
    seconds: float


def build(
    spark: SparkSession,
    settings: Settings,
    profile: Profile,
    plan: PairPlan,
    generator: GeneratorRef | None = None,
    *,
    progress: Progress | None = None,
) -> PairsReport:
    """``useru_pairs`` holds this build's pairs and no other's, in one commit; ``job_runs`` says so.

    The same plan over the same lake makes the same rows. A run that fails leaves the former table; what an
    endpoint answered until then is in its cache.

    Raises:
        InputDataError: no user, or no cutoff of any user leaves the shortest horizon before the end of
        what may be known. BackendError: the endpoint. JobBusyError, LakeError: as in a refresh.
    """
    lake, clock = Lake(spark, settings), RunClock(settings)
    generator = generator or GeneratorRef()
    with in_utc(spark):
        lake.prepare()
        with only_run(lake.folder, clock.run):
            lake.create_tables()
            try:
                with named_failures(f"pairs, {lake.folder}"):
                    counts, num_shards = _build(
                        lake, profile, plan, generator, progress or default_progress()
                    )
            except Exception as error:
                message = f"{type(error).__name__}: {error}"[:2000]
                write_runs(lake, clock, [JobRow(job=JOB, state=FAILED, message=message)])
                raise
            write_runs(lake, clock, [_row(lake, profile, plan, generator, counts)])
    return PairsReport(run=clock.run, counts=counts, num_shards=num_shards, seconds=round(clock.seconds, 3))


def estimate(
    spark: SparkSession,
    settings: Settings,
    profile: Profile,
    plan: PairPlan,
    generator: GeneratorRef,
    *,
    progress: Progress | None = None,
) -> CostEstimate:
    """What :func:`build` would ask the endpoint for, and its price; nothing is sent or written."""
    lake = Lake(spark, settings)
    with in_utc(spark), named_failures(f"pairs, {lake.folder}"):
        users = _users(lake, profile)
        with stage(spark, progress or default_progress(), "estimate of pairs", users) as done:
            make = _estimator(profile, plan, generator, done)
            rows = _by_shard(lake, profile, plan, users, make, ESTIMATES).collect()
    return summed([CostEstimate(**row.asDict()) for row in rows])


def _build(
    lake: Lake, profile: Profile, plan: PairPlan, generator: GeneratorRef, progress: Progress
) -> tuple[PairCounts, int]:
    users = _users(lake, profile)
    context = lake.spark.sparkContext
    counted = context.accumulator({}, _ByShard())
    shared = generator.shared_by(context.defaultParallelism)
    with stage(lake.spark, progress, f"pairs of {profile.name}", users) as done:
        make = _builder(profile, plan, shared, done, counted)
        made = _by_shard(lake, profile, plan, users, make, from_arrow_schema(S.USERU_PAIRS))
        made = made.persist(StorageLevel.DISK_ONLY)
        try:
            num_pairs = made.count()
            if not num_pairs:
                raise InputDataError(_nothing(plan))
            _replace(lake, made)
        finally:
            made.unpersist()
    return sum(counted.value.values(), PairCounts()), plan.num_shards(users)


def _users(lake: Lake, profile: Profile) -> int:
    users = num_users(behaviour(lake, profile))
    if not users:
        raise InputDataError(
            f"the lake holds no behaviour of profile {profile.name!r}. Run feast materialize first."
        )
    return users


def _by_shard(
    lake: Lake, profile: Profile, plan: PairPlan, users: int, make: _Make, schema: Any
) -> DataFrame:
    """``make`` over each shard's behaviour and the texts that it names; one shard is in a task's memory."""
    num_shards = plan.num_shards(users)
    parts = min(num_shards, max(4 * lake.spark.sparkContext.defaultParallelism, -(-num_shards // 4)))
    rows = _with_shard(behaviour(lake, profile), plan.seed, num_shards)
    ids = rows.mapInArrow(_text_ids, f"{S.SHARD} int, {S.TEXT_ID} binary").distinct()
    texts = ids.join(lake.read("event_texts"), on=S.TEXT_ID, how="inner")
    sides = [one.repartition(parts, S.SHARD).groupBy(S.SHARD) for one in (rows, texts)]
    return sides[0].cogroup(sides[1]).applyInArrow(make, schema)


def _with_shard(rows: DataFrame, seed: int, num_shards: int) -> DataFrame:
    def number(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            users = batch.column(S.USER).to_pylist()
            shards = [shard_of(user, seed=seed, num_shards=num_shards) for user in users]
            yield batch.append_column(S.SHARD, pa.array(shards, pa.int32()))

    schema = StructType([*rows.schema.fields, StructField(S.SHARD, IntegerType())])
    return rows.mapInArrow(number, schema)


def _text_ids(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Shard and id of every text that the rows name, each once a batch; zeros are null."""
    for batch in batches:
        named: set[tuple[int, bytes]] = set()
        for shard, texts, groups in zip(
            *(batch.column(name).to_pylist() for name in (S.SHARD, S.TEXT_ID, S.GROUPS)), strict=True
        ):
            named.update((shard, text) for text in texts)
            for joined in set(groups):
                named.update(
                    (shard, joined[at : at + TEXT_ID_BYTES]) for at in range(0, len(joined), TEXT_ID_BYTES)
                )
        shards, ids = zip(*named, strict=True) if named else ((), ())
        yield pa.RecordBatch.from_arrays(
            [pa.array(shards, pa.int32()), pa.array(ids, pa.binary())], [S.SHARD, S.TEXT_ID]
        )


def _builder(
    profile: Profile,
    plan: PairPlan,
    generator: GeneratorRef,
    done: Accumulator[int],
    counted: "Accumulator[dict[int, PairCounts]]",
) -> _Make:
    def make(rows: pa.Table, texts: pa.Table) -> pa.Table:
        shard = rows[S.SHARD][0].as_py()
        counts = PairCounts()
        users, text_of = _histories(rows, profile), _text_of(texts)
        pairs = build_pairs(users, profile, text_of, plan, generator.open(), shard=shard, counts=counts)
        table = pairs_table(pairs)
        counted.add({shard: counts})
        done.add(counts.num_users)
        return table

    return make


def _estimator(profile: Profile, plan: PairPlan, generator: GeneratorRef, done: Accumulator[int]) -> _Make:
    def make(rows: pa.Table, texts: pa.Table) -> pa.Table:
        users = list(_histories(rows, profile))
        asked = list(requests_of(users, profile, _text_of(texts), plan, shard=rows[S.SHARD][0].as_py()))
        opened = generator.open()
        free = CostEstimate(
            num_requests=len(asked), num_cached=0, prompt_tokens=0, answer_tokens=0, dollars=0.0
        )
        cost = opened.estimate(asked) if isinstance(opened, EndpointGenerator) else free
        done.add(len(users))
        return pa.Table.from_pylist([asdict(cost)])

    return make


def _histories(rows: pa.Table, profile: Profile) -> Any:
    return histories(rows.sort_by(S.USER), profile)


def _text_of(texts: pa.Table) -> dict[bytes, str]:
    return dict(zip(texts[S.TEXT_ID].to_pylist(), texts[S.TEXT].to_pylist(), strict=True))


def _replace(lake: Lake, rows: DataFrame) -> None:
    path = str(lake.folder / S.PAIRS_TABLE)
    builder = (
        DeltaTable.createIfNotExists(lake.spark)
        .location(path)
        .addColumns(from_arrow_schema(S.USERU_PAIRS))
        .property("delta.enableDeletionVectors", "false")
        .property("delta.columnMapping.mode", "none")
        .property("delta.dataSkippingStatsColumns", ",".join((S.KIND, S.CUTOFF)))
        .partitionedBy(S.SHARD)
    )
    with named_failures(path):
        builder.execute()
        writer = rows.sortWithinPartitions(S.SHARD).write.format("delta").mode("overwrite")
        writer.option("overwriteSchema", "true").partitionBy(S.SHARD).save(path)


def _row(lake: Lake, profile: Profile, plan: PairPlan, generator: GeneratorRef, counts: PairCounts) -> JobRow:
    tables = ("behaviour_sequences", "profile_rows", "event_texts")
    return JobRow(
        job=JOB,
        complete_to=datetime.fromtimestamp(plan.known_until / 1e6, UTC),
        source_versions={name: str(lake.version(name)) for name in tables} | {"profile": profile.digest},
        counts={"plan": asdict(plan), "generator": generator.name} | asdict(counts),
    )


def _nothing(plan: PairPlan) -> str:
    until = datetime.fromtimestamp(plan.known_until / 1e6, UTC)
    return (
        f"no pair can be made: no user has an event {plan.horizons[0]} days before "
        f"{until:%Y-%m-%dT%H:%M:%SZ}, the end of what may be known. Give a later --until, or load more "
        "history. The former table stands."
    )


class _ByShard(AccumulatorParam["dict[int, PairCounts]"]):
    """Counts by shard: a task that runs twice is counted once."""

    def zero(self, value: dict[int, PairCounts]) -> dict[int, PairCounts]:
        """No shard."""
        return {}

    def addInPlace(self, one: dict[int, PairCounts], other: dict[int, PairCounts]) -> dict[int, PairCounts]:
        """The shards of both."""
        return {**one, **other}
