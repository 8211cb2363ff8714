"""Ordinary feature views, beside the anchors: the same store, the same calls."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Float64, Int64, String

from feast_repo import sources
from feast_repo.entities import household

demographics = FeatureView(
    name="demographics",
    entities=[household],
    ttl=timedelta(0),
    schema=[
        Field(name="age", dtype=String),
        Field(name="income", dtype=String),
        Field(name="home_ownership", dtype=String),
        Field(name="marital_status", dtype=String),
        Field(name="household_size", dtype=String),
        Field(name="household_comp", dtype=String),
        Field(name="kids_count", dtype=String),
    ],
    source=sources.demographics,
)

spend = FeatureView(
    name="spend",
    entities=[household],
    ttl=timedelta(days=365),
    schema=[
        Field(name="total", dtype=Float64, description="USD since the first day of the data"),
        Field(name="lines", dtype=Int64, description="purchase lines since the first day of the data"),
        Field(name="last_30_days", dtype=Float64, description="USD in the 30 days up to this shopping day"),
        Field(name="day_total", dtype=Float64, description="USD on this shopping day"),
    ],
    source=sources.spend,
)
