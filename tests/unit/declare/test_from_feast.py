"""Records made of Feast's own objects."""

import pytest
from feast import Entity, FileSource, ValueType
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat

from qanchor_plugin.declare import EntityRef, SourceSpec
from qanchor_plugin.errors import DeclarationError


def test_a_spark_source_keeps_its_place_format_and_times() -> None:
    source = SparkSource(
        name="purchases",
        path="raw/purchases",
        table_format=DeltaFormat(),
        timestamp_field="bought_at",
        created_timestamp_column="loaded_at",
        field_mapping={"hh": "household_id"},
    )
    spec = SourceSpec.of(source)
    assert (spec.path, spec.format, spec.event_at, spec.known_at) == (
        "raw/purchases",
        "delta",
        "bought_at",
        "loaded_at",
    )
    assert spec.field_mapping == {"hh": "household_id"}
    assert SourceSpec.from_dict(spec.to_dict()) == spec


def test_a_source_made_twice_is_the_same_record() -> None:
    made = [
        SourceSpec.of(SparkSource(name="s", path="p", file_format="parquet", timestamp_field="t"))
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert made[0].format == "parquet"


def test_what_spark_cannot_read_is_refused_with_the_way_out() -> None:
    with pytest.raises(DeclarationError, match="must be a Feast SparkSource, not str"):
        SourceSpec.of("raw/purchases")


def test_an_entity_needs_a_value_type() -> None:
    entity = Entity(name="household", join_keys=["household_id"], value_type=ValueType.INT64)
    assert EntityRef.of(entity) == EntityRef(name="household", join_key="household_id", value_type="INT64")
    with pytest.raises(DeclarationError, match="must be a Feast Entity"):
        EntityRef.of(FileSource(path="x", timestamp_field="t"))
