"""Ordinary Spark feature views: from a Feast view to the history that the as-of join reads."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from feast import FeatureView
from feast.batch_feature_view import BatchFeatureView
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID
from feast.feature_view_utils import (
    get_transformation_function,
    has_transformation,
    resolve_feature_view_source_with_fallback,
)
from feast.types import Bool, Bytes, FeastType, Float32, Float64, Int32, Int64, String
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.asof_join import History, quoted
from qanchor_plugin.feast_ext.entity_rows import EntityRows
from qanchor_plugin.feast_ext.spark_source import read

_SPARK_TYPES: dict[FeastType, str] = {
    Int64: "bigint",
    Int32: "int",
    String: "string",
    Bytes: "binary",
    Bool: "boolean",
    Float64: "double",
    Float32: "float",
}


def history_of(
    spark: SparkSession, view: FeatureView, features: Mapping[str, str], entity: EntityRows
) -> History:
    """The view's history, no more of it than these entity rows may see.

    Args:
        features: feature name -> column name in the answer.
    """
    source, column_of = _source(view), _source_columns(view)
    rows = _rows(spark, view)
    ttl = view.ttl or timedelta(0)
    declared = [column_of(feature.name) for feature in view.features]
    wanted = {name: column_of(feature) for feature, name in features.items()}
    created = column_of(source.created_timestamp_column) if source.created_timestamp_column else ""
    event_at = column_of(source.timestamp_field)
    ties = [column for column in declared if created == "" or column in wanted.values()]
    return History(
        rows=_within(rows, source, event_at, ttl, entity),
        keys=join_keys(view),
        key_types=_key_types(view),
        event_at=event_at,
        created_at=created,
        features=wanted,
        tie_columns=[column for column in ties if column in rows.columns],
        ttl=ttl,
    )


def join_keys(view: FeatureView) -> dict[str, str]:
    """Column of the entity rows -> column of the source; empty for a view without entities."""
    column_of = _source_columns(view)
    renamed = view.projection.join_key_map
    return {
        renamed.get(column.name, column.name): column_of(column.name)
        for column in view.entity_columns
        if column.name != DUMMY_ENTITY_ID
    }


def keys_between(spark: SparkSession, view: FeatureView, start: datetime, end: datetime) -> DataFrame:
    """The distinct keys of a view's rows with start <= event <= end, named as entity rows name them."""
    types = _key_types(view)
    event_at = quoted(_source_columns(view)(_source(view).timestamp_field)).cast("timestamp")
    rows = _rows(spark, view).where((event_at >= F.lit(start)) & (event_at <= F.lit(end)))
    keys = [
        (quoted(column).try_cast(types[name]) if name in types else quoted(column)).alias(name)
        for name, column in join_keys(view).items()
    ]
    return rows.select(*keys).distinct()


def _rows(spark: SparkSession, view: FeatureView) -> DataFrame:
    if isinstance(view, BatchFeatureView) and has_transformation(view):
        transform = get_transformation_function(view)
        if transform is not None:
            return transform(read(spark, resolve_feature_view_source_with_fallback(view).data_source))
    return read(spark, _source(view))


def _within(rows: DataFrame, source: Any, event_at: str, ttl: timedelta, entity: EntityRows) -> DataFrame:
    """Rows that no entity row can see are left where they lie: files and partitions are skipped."""
    if entity.first is None or entity.last is None:
        return rows
    instant = quoted(event_at).cast("timestamp")
    rows = rows.where(instant <= F.lit(entity.last))
    partition, fmt = source.date_partition_column, source.date_partition_column_format
    if partition and fmt:
        rows = rows.where(quoted(partition) <= entity.last.strftime(fmt))
    if not ttl:
        return rows
    rows = rows.where(instant >= F.lit(entity.first - ttl))
    if partition and fmt:
        rows = rows.where(quoted(partition) >= (entity.first - ttl).strftime(fmt))
    return rows


def _source(view: FeatureView) -> DataSource:
    if view.batch_source is None:
        raise DeclarationError(f"feature view {view.name!r} has no batch source; it has no history to read.")
    return view.batch_source


def _source_columns(view: FeatureView) -> Any:
    back = {mapped: column for column, mapped in _source(view).field_mapping.items()}
    return lambda name: back.get(name, name)


def _key_types(view: FeatureView) -> dict[str, str]:
    renamed = view.projection.join_key_map
    return {
        renamed.get(column.name, column.name): _SPARK_TYPES[column.dtype]
        for column in view.entity_columns
        if column.dtype in _SPARK_TYPES
    }


def all_join_keys(views: Sequence[FeatureView]) -> list[str]:
    """Every entity column that these views join on, once, in order."""
    return list(dict.fromkeys(key for view in views for key in join_keys(view)))
