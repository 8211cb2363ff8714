"""Every Feast type that Spark can hold, and arrays of them, with values and nulls."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pandas as pd
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    Map,
    String,
    UnixTimestamp,
)

from benchmarks.conformance.world import World, case, equal, frame, on, view

_WHEN = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SCALARS: dict[str, tuple[str, Any, Any]] = {
    "Int32": ("int", Int32, -(2**31)),
    "Int64": ("bigint", Int64, 2**53 + 1),
    "Float32": ("float", Float32, 1.5),
    "Float64": ("double", Float64, 0.1),
    "String": ("string", String, "żółw '\" \\"),
    "Bytes": ("binary", Bytes, b"\x00\xff"),
    "Bool": ("boolean", Bool, True),
    "UnixTimestamp": ("timestamp", UnixTimestamp, _WHEN),
    "a date as UnixTimestamp": ("date", UnixTimestamp, _WHEN.date()),
    "a decimal as Float64": ("decimal(10,2)", Float64, Decimal("12.34")),
    "Map": ("map<string,string>", Map, {"a": "b"}),
}


def _array(name: str) -> tuple[str, Any, Any]:
    kind, feast_type, value = SCALARS[name]
    return f"array<{kind}>", Array(feast_type), [value, value]


TYPES = SCALARS | {
    f"Array({name})": _array(name)
    for name in ("Int32", "Int64", "Float32", "Float64", "String", "Bytes", "Bool", "UnixTimestamp")
}


def _one_type(world: World, *, name: str) -> None:
    kind, feast_type, value = TYPES[name]
    rows = [(1, on(1), value), (2, on(1), None), (1, on(0), None)]
    place = world.write(rows, f"user long, at timestamp, value {kind}")
    store = world.store(*view(place, {"user": "long"}, {"value": feast_type}))
    asked = frame([on(2)] * 3, user=[1, 2, 3], n=[1, 2, 3])
    table = store.get_historical_features(asked, ["v:value"]).to_arrow()
    found = table.sort_by("n")["value"].to_pylist()
    equal([_plain(one) for one in found], [_plain(value), None, None])


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime()
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else f"{value} without a zone"
    if isinstance(value, list):
        pairs = [one for one in value if isinstance(one, tuple)]
        return dict(pairs) if pairs else [_plain(one) for one in value]
    return value


for _name in TYPES:
    case("types", f"{_name}, and null")(partial(_one_type, name=_name))

__all__ = ["TYPES"]
