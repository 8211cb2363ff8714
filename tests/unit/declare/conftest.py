"""Small declarations, made without Feast."""

import pytest

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec


@pytest.fixture
def purchases() -> Modality:
    source = SourceSpec(name="purchases", path="raw/purchases", event_at="bought_at", known_at="loaded_at")
    return Modality(
        "purchases",
        source,
        text="{brand} {product}",
        group_by=("category",),
        amounts=("price",),
        max_events=3,
    )


@pytest.fixture
def household() -> EntityRef:
    return EntityRef(name="household", join_key="household_id", value_type="INT64")


@pytest.fixture
def profile(purchases: Modality, household: EntityRef) -> Profile:
    return Profile("journey", household, [purchases])
