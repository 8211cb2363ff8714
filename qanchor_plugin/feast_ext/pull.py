"""Plain reads of a source: the newest row of every key, or all rows of a range."""

from collections.abc import Sequence
from datetime import datetime

from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.utils import make_tzaware
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.feast_ext.anchor_history import key_columns
from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.feast_ext.asof_join import quoted
from qanchor_plugin.feast_ext.spark_source import read

_NEWEST = "__qanchor_newest"


def pull_latest(
    spark: SparkSession,
    settings: Settings,
    source: DataSource,
    keys: Sequence[str],
    features: Sequence[str],
    timestamp: str,
    created: str | None,
    start: datetime | None,
    end: datetime | None,
) -> DataFrame:
    """One row a key: the newest by instant, then creation, then the greatest values. Nulls are one key."""
    rows = _between(rows_of(spark, settings, source), timestamp, start, end)
    times = [timestamp, *([created] if created else [])]
    order = [quoted(name).desc_nulls_last() for name in times]
    orderable = {field.name for field in rows.schema if field.dataType.typeName() != "map"}
    order += [quoted(name).desc_nulls_last() for name in features if name in orderable]
    each = Window.partitionBy(*[quoted(name) for name in keys]).orderBy(*order)
    newest = rows.withColumn(_NEWEST, F.row_number().over(each)).where(F.col(_NEWEST) == 1)
    found = newest.select(*_mapped(source, [*keys, *features, *times]))
    return found if keys else found.withColumn(DUMMY_ENTITY_ID, F.lit(DUMMY_ENTITY_VAL))


def pull_all(
    spark: SparkSession,
    settings: Settings,
    source: DataSource,
    keys: Sequence[str],
    features: Sequence[str],
    timestamp: str,
    created: str | None,
    start: datetime | None,
    end: datetime | None,
) -> DataFrame:
    """Every row of the range; every column when no feature is named."""
    rows = _between(rows_of(spark, settings, source), timestamp, start, end)
    if not features:
        return rows
    return rows.select(*_mapped(source, [*keys, *features, timestamp, *([created] if created else [])]))


def rows_of(spark: SparkSession, settings: Settings, source: DataSource) -> DataFrame:
    """A Spark source's rows; of an anchor source the stored embeddings of the declared scenario."""
    return (
        stored_embeddings(spark, settings, source)
        if isinstance(source, AnchorSource)
        else read(spark, source)
    )


def stored_embeddings(spark: SparkSession, settings: Settings, source: AnchorSource) -> DataFrame:
    """Keys, features and timestamp of every stored embedding of this scenario's identity."""
    from spark_jobs.tables import Lake

    declared = Declarations.of("asked", [source.profile], [source.scenario])
    stored = Lake(spark, settings).read("scenario_embeddings")
    mine = stored.where(
        (F.col(S.SCENARIO) == source.scenario.name)
        & (F.col(S.SCENARIO_ID) == declared.scenario_id(source.scenario))
    )
    return mine.select(
        *key_columns([(entity, entity.join_key) for entity in source.profile.entities]),
        S.EMBEDDING,
        S.EMBEDDING_ID,
        S.CUTOFF,
        S.AS_OF,
        F.col(S.NUM_EVENTS).cast("bigint").alias(S.NUM_EVENTS),
        F.lit("stored").alias("status"),
        F.col(S.CUTOFF).alias("data_as_of"),
        F.col(S.SERVED_AT).alias(source.timestamp_field),
    )


def _between(rows: DataFrame, timestamp: str, start: datetime | None, end: datetime | None) -> DataFrame:
    instant = quoted(timestamp).cast("timestamp")
    if start is not None:
        rows = rows.where(instant >= F.lit(make_tzaware(start)))
    return rows if end is None else rows.where(instant <= F.lit(make_tzaware(end)))


def _mapped(source: DataSource, columns: Sequence[str]) -> list:
    """Each column once, under the name that features have."""
    return [quoted(name).alias(source.field_mapping.get(name, name)) for name in dict.fromkeys(columns)]
