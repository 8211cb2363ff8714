"""The entity rows of a training set: from a file or a query to numbered rows on disk, by chunk of users."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feast import FeatureStore, FeatureView, utils
from feast.errors import EntityTimestampInferenceException, FeastError
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.type_map import spark_schema_to_np_dtypes
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.declare import Declarations
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.feast_ext.asof_join import quoted
from qanchor_plugin.feast_ext.declarations import is_anchor
from qanchor_plugin.feast_ext.historical import Wanted, keys_of, wanted_of
from qanchor_plugin.feast_ext.spark_source import read
from qanchor_plugin.identity import digest

NUMBER, SPREAD = "__qanchor_number", "__qanchor_spread"
_SUFFIXES = {".parquet": "parquet", ".csv": "csv", "": "parquet"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of the store.

    Attributes:
        features: references, as given.
        wanted: each view with its features and their columns.
        on_demand: whether a feature is an on-demand view's, which only runs on the driver.
        declared: identity of each view by name.
    """

    features: tuple[str, ...]
    wanted: Wanted
    on_demand: bool
    declared: dict[str, str]


def asked_of(store: FeatureStore, features: Sequence[str]) -> Asked:
    """The references resolved in the registry.

    Raises:
        InputDataError: a reference that is none, or names what is not registered.
    """
    wrong = [one for one in features if one.count(":") != 1]
    if wrong or not features:
        raise InputDataError(f"--features {wrong}: write VIEW:FEATURE, such as coupon_redeemer:embedding.")
    try:
        refs = utils._get_features(store.registry, store.project, list(features))
        views, on_demand = utils._get_feature_views_to_use(store.registry, store.project, list(features))
        by_view, of_demand = utils._group_feature_refs(refs, views, on_demand)
    except (FeastError, ValueError) as error:
        raise InputDataError(
            f"--features: {error} List what is registered with: feast feature-views list."
        ) from error
    grouped = [(view, names) for view, names in by_view if isinstance(view, FeatureView)]
    needed = [*refs, *(f"{view.projection.name_to_use()}:{one}" for view, ones in grouped for one in ones)]
    wanted = wanted_of(
        [view for view, _ in grouped], list(dict.fromkeys(needed)), store.registry, store.project, True
    )
    return Asked(
        features=tuple(features),
        wanted=wanted,
        on_demand=bool(of_demand),
        declared=_declared([*wanted, *(view for view, _ in of_demand)]),
    )


def digest_of(entities: str) -> str:
    """Of a file or folder its bytes, of a query its text."""
    if not _is_path(entities):
        return digest("sql", entities)
    path = _existing(entities)
    hasher = hashlib.blake2b(digest_size=16)
    for file in [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file()):
        hasher.update(file.name.encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 22):
                hasher.update(block)
    return hasher.hexdigest()


def stage(spark: SparkSession, entities: str, asked: Asked, place: str) -> int:
    """The rows stand at ``place``, numbered in their order, with what spreads users over chunks; how many.

    Raises:
        InputDataError: a join key is absent, or no column holds instants.
    """
    rows = _given(spark, entities)
    missing = sorted(set(keys_of(asked.wanted)) - set(rows.columns))
    if missing:
        raise InputDataError(
            f"--entities: the rows have no column {missing}; they have {rows.columns}. The features are "
            "joined on it: add it."
        )
    at = instant_column(rows)
    spread = F.xxhash64(*[quoted(name).cast("string") for name in sorted(keys_of(asked.wanted))])
    staged = rows.select(
        *[quoted(one).cast("timestamp").alias(at) if one == at else quoted(one) for one in rows.columns],
        F.monotonically_increasing_id().alias(NUMBER),
        spread.alias(SPREAD),
    )
    staged.write.mode("overwrite").parquet(place)
    return spark.read.parquet(place).count()


def instant_column(rows: DataFrame) -> str:
    """The column with each row's instant: ``event_timestamp``, or the only timestamp."""
    plain = [name for name in rows.columns if name not in (NUMBER, SPREAD)]
    kinds = [(name, "timestamp" if kind == "timestamp_ntz" else kind) for name, kind in rows.dtypes]
    types = dict(zip(rows.columns, spark_schema_to_np_dtypes(kinds), strict=True))
    try:
        return str(infer_event_timestamp_from_entity_df({name: types[name] for name in plain}))
    except EntityTimestampInferenceException as error:
        raise InputDataError(
            f"--entities: no single column holds instants among {plain}. Name it event_timestamp."
        ) from error


def chunk_of(rows: DataFrame, number: int, num_chunks: int) -> DataFrame:
    """The rows of one chunk: whole users, the same however often it is asked."""
    spread = F.pmod(F.col(SPREAD), F.lit(num_chunks))
    return rows.where(spread == number).drop(SPREAD)


def chunk_sizes(rows: DataFrame, num_chunks: int) -> dict[int, int]:
    """Rows of each chunk that has any."""
    number = F.pmod(F.col(SPREAD), F.lit(num_chunks)).alias("number")
    return {row["number"]: row["count"] for row in rows.groupBy(number).count().collect()}


def _given(spark: SparkSession, entities: str) -> DataFrame:
    if not _is_path(entities):
        return spark.sql(entities)
    path = _existing(entities)
    kind = _SUFFIXES.get(path.suffix if path.is_file() else "")
    if kind is None:
        raise InputDataError(f"--entities {entities!r}: accepted are .parquet and .csv files, or SQL.")
    if kind == "csv":
        return spark.read.options(header=True, inferSchema=True).csv(str(path))
    return read(spark, SparkSource(name="entities", path=str(path.resolve()), file_format=kind))


def _existing(entities: str) -> Path:
    if not Path(entities).exists():
        raise InputDataError(
            f"--entities {entities!r}: there is no such file. Give a .parquet or .csv file, a folder of "
            "parquet or Delta, or an SQL query."
        )
    return Path(entities)


def _is_path(entities: str) -> bool:
    return not entities.lstrip().lower().startswith(("select ", "with ", "select\n", "table "))


def _declared(views: Sequence[Any]) -> dict[str, str]:
    found = {}
    for view in views:
        if is_anchor(view):
            source = view.batch_source
            declared = Declarations.of("asked", [source.profile], [source.scenario])
            found[view.name] = declared.scenario_id(source.scenario)
        else:
            found[view.name] = digest("view", view.to_proto().spec.SerializeToString(deterministic=True))
    return found
