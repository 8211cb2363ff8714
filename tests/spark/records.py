"""Declared records that the Spark tests share."""

from qanchor_plugin.declare import EntityRef, Modality, SourceSpec

HOUSEHOLD = EntityRef(name="household", join_key="household_id", value_type="INT64")


def purchases(path: str = "purchases", **changed: object) -> Modality:
    """Events with a created column, two groups and one amount."""
    given: dict = {
        "text": "{brand} {product}",
        "group_by": ("category", "aisle"),
        "amounts": ("value",),
        "max_events": 8,
    }
    source = SourceSpec(name="purchases", path=path, event_at="at", known_at=changed.pop("known_at", ""))  # type: ignore[arg-type]
    return Modality("purchases", source, **(given | changed))


def card(path: str = "card", **changed: object) -> Modality:
    """A tabular modality."""
    source = SourceSpec(name="card", path=path, event_at="at")
    return Modality("card", source, text="tier {tier}", kind="tabular", **changed)  # type: ignore[arg-type]
