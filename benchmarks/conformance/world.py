"""A small store of either kind, and the register of cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig, ValueType
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat
from pyspark.sql import SparkSession

STORES = {"ours": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore", "stock": "spark"}
DAY = timedelta(days=1)
KEY_TYPES = {"string": ValueType.STRING, "long": ValueType.INT64, "int": ValueType.INT32}


def on(day: float) -> datetime:
    """The instant ``day`` days after 2024-05-01."""
    return datetime(2024, 5, 1, tzinfo=UTC) + day * DAY


@dataclass
class World:
    """One store with one folder.

    Attributes:
        kind: ``ours`` or ``stock``.
    """

    spark: SparkSession
    folder: Path
    kind: str
    made: int = field(default=0)

    def place(self) -> Path:
        """A path that nothing stands at."""
        self.made += 1
        return self.folder / f"table_{self.made}"

    def write(self, rows: Sequence[tuple], schema: str, form: str = "delta") -> Path:
        """The rows stand in a table of their own."""
        place = self.place()
        self.spark.createDataFrame(list(rows), schema).coalesce(1).write.format(form).save(str(place))
        return place

    def store(self, *objects: Any) -> FeatureStore:
        """A store with these objects applied."""
        self.made += 1
        base = self.folder / f"store_{self.made}"
        base.mkdir(parents=True)
        store = FeatureStore(
            config=RepoConfig(
                project="conformance",
                provider="local",
                registry={"path": str(base / "registry.db")},
                online_store={"type": "sqlite", "path": str(base / "online.db")},
                offline_store={"type": STORES[self.kind]},
                entity_key_serialization_version=3,
                repo_path=base,
                qanchor={"lake": str(base / "lake"), "device": "cpu"},
            )
        )
        store.apply(list(objects))
        return store


def view(
    place: Path, keys: dict[str, str], features: dict[str, Any], *, created: str = "", **changes: Any
) -> list[Any]:
    """Entities and the feature view ``v`` over a Delta table with an ``at`` column, made anew.

    Args:
        keys: join key -> Spark type.
        features: feature -> Feast type.
    """
    entities = [
        Entity(name=f"{key}_e", join_keys=[key], value_type=KEY_TYPES[kind]) for key, kind in keys.items()
    ]
    given: dict[str, Any] = {"ttl": timedelta(0), "name": "v", **changes}
    source = given.pop("source", None) or SparkSource(
        name=f"source of {given['name']}",
        path=str(place),
        table_format=DeltaFormat(),
        timestamp_field="at",
        created_timestamp_column=created,
        field_mapping=given.pop("field_mapping", None),
    )
    fields = [Field(name=name, dtype=kind) for name, kind in features.items()]
    return [*entities, FeatureView(entities=entities, schema=fields, source=source, **given)]


def frame(at: Sequence[Any], **columns: Sequence[Any]) -> pd.DataFrame:
    """Entity rows."""
    return pd.DataFrame({**columns, "event_timestamp": at})


Case = Callable[[World], None]
CASES: dict[tuple[str, str], Case] = {}
"""Group and name -> the case; it raises where the store is wrong."""


def case(group: str, name: str) -> Callable[[Case], Case]:
    """Registers a case."""

    def register(function: Case) -> Case:
        CASES[group, name] = function
        return function

    return register


def equal(found: Any, expected: Any) -> None:
    """Raises AssertionError with both where they differ."""
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


def listed(column: Any) -> list[Any]:
    """A pandas column as plain values, nulls as None, arrays as lists."""
    values = []
    for value in column:
        if hasattr(value, "tolist") and not isinstance(value, str | bytes):
            value = value.tolist()
        values.append(None if value is None or value is pd.NaT or value != value else value)
    return values
