"""Embeddings as production would have read them at each row's instant."""

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Declarations, Scenario, Settings
from spark_jobs.engines import chosen
from spark_jobs.point_in_time import AT, ROW_ID
from spark_jobs.runs import SCENARIO_JOB, SUCCEEDED
from spark_jobs.tables import Lake
from spark_jobs.wide_answers import ANSWER_NAMES

_COMPLETE, _SINCE = "complete_us", "since_us"
OUTSIDE_TTL = "outside_ttl"
"""Column: a row was served by then, and the scenario was not complete within the ttl any more."""


def as_served(
    spark: SparkSession,
    settings: Settings,
    declarations: Declarations,
    rows: DataFrame,
    scenarios: Sequence[str],
) -> DataFrame:
    """One row a (row, scenario): ``row_id, scenario, embedding, embedding_id, cutoff, as_of, num_events`` and
    ``outside_ttl``.

    The answer is the newest stored row of the scenario's identity with ``served_at <= at``, while it was
    fresh: ``at`` less the instant that the scenario was then complete to (``job_runs``) is within the ttl
    (zero: for ever). Without one the answer is null. An answer made on a miss is fresh by its own cutoff.

    Args:
        rows: ``row_id`` bigint, ``user`` binary, ``at`` timestamp.
    """
    lake = Lake(spark, settings)
    asked = rows.select(F.col(ROW_ID).cast("long").alias(ROW_ID), S.USER, AT)
    wanted = [
        (one.name, declarations.scenario_id(one), _ttl_micros(one)) for one in chosen(declarations, scenarios)
    ]
    names = spark.createDataFrame(wanted, "scenario string, scenario_id string, ttl long")
    each = asked.crossJoin(F.broadcast(names))
    stored = lake.read("scenario_embeddings").select(
        S.SCENARIO, S.SCENARIO_ID, S.USER, S.SERVED_AT, S.BATCH, *ANSWER_NAMES
    )
    served = each.join(stored, on=[S.SCENARIO, S.SCENARIO_ID, S.USER], how="inner").where(
        F.col(S.SERVED_AT) <= F.col(AT)
    )
    order = F.struct(S.CUTOFF, S.SERVED_AT, S.BATCH)
    answer = F.max_by(F.struct(*ANSWER_NAMES), order).alias("answer")
    newest = served.groupBy(ROW_ID, S.SCENARIO).agg(answer)
    complete = _complete(lake, each)
    fresh = (
        each.join(newest, on=[ROW_ID, S.SCENARIO], how="left")
        .join(complete, on=[ROW_ID, S.SCENARIO], how="left")
        .withColumn("fresh", _is_fresh())
    )
    columns = [F.when(F.col("fresh"), F.col(f"answer.{name}")).alias(name) for name in ANSWER_NAMES]
    expired = (F.col("answer").isNotNull() & ~F.col("fresh")).alias(OUTSIDE_TTL)
    return fresh.select(ROW_ID, S.SCENARIO, *columns, expired)


def _is_fresh() -> Column:
    own = F.unix_micros("answer.cutoff")
    complete = F.greatest(F.coalesce(F.col(_COMPLETE), own), own)
    return (F.col("ttl") == 0) | (F.unix_micros(AT) - complete <= F.col("ttl"))


def _complete(lake: Lake, each: DataFrame) -> DataFrame:
    """Of each (row, scenario): the instant it was complete to at the row's, by runs ended by then."""
    runs = lake.read("job_runs").where((F.col(S.JOB) == SCENARIO_JOB) & (F.col(S.STATE) == SUCCEEDED))
    steps = runs.select(
        S.SCENARIO,
        S.SCENARIO_ID,
        F.unix_micros(S.STARTED_AT).alias(_SINCE),
        F.unix_micros(S.COMPLETE_TO).alias(_COMPLETE),
    )
    joined = each.join(F.broadcast(steps), on=[S.SCENARIO, S.SCENARIO_ID], how="inner")
    then = joined.where(F.col(_SINCE) <= F.unix_micros(AT))
    return then.groupBy(ROW_ID, S.SCENARIO).agg(F.max(_COMPLETE).alias(_COMPLETE))


def _ttl_micros(scenario: Scenario) -> int:
    return round(scenario.ttl.total_seconds() * 1_000_000)
