"""Who the features are about."""

from feast import Entity, ValueType

household = Entity(
    name="household",
    join_keys=["household_id"],
    value_type=ValueType.INT64,
    description="A household with a loyalty card",
)
