"""Pushed values in the types of their source: what the batch will read is what is rendered now."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from qanchor_plugin.declare import SourceSpec
from qanchor_plugin.errors import DeclarationError, LakeError
from qanchor_plugin.extras import require

SCHEMA_SECONDS = 60.0
"""How long a source's column types are remembered."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_lock = threading.Lock()
_schemas: dict[tuple[str, str], tuple[float, pa.Schema]] = {}


def source_types(spec: SourceSpec) -> pa.Schema:
    """The source's columns as Arrow types, at most ``SCHEMA_SECONDS`` old; read without Spark.

    Raises:
        DeclarationError: a source of a kind whose types cannot be read so.
        LakeError: it cannot be read.
    """
    if not spec.path or spec.format not in ("delta", "parquet"):
        raise DeclarationError(
            f"source {spec.name!r} takes no pushes: it is no folder of Delta or Parquet. Elsewhere the types "
            "of its columns, which decide how a value reads as text, are not found without Spark. Declare a "
            "SparkSource(path=..., table_format=DeltaFormat())."
        )
    key = spec.path if "://" in spec.path else str(Path(spec.path).resolve()), spec.format
    with _lock:
        known = _schemas.get(key)
        if known is None or time.monotonic() - known[0] > SCHEMA_SECONDS:
            known = _schemas[key] = time.monotonic(), _read_types(spec)
        return known[1]


def _read_types(spec: SourceSpec) -> pa.Schema:
    deltalake = require("deltalake", purpose="Pushing events")
    try:
        if spec.format == "delta":
            return pa.schema(deltalake.DeltaTable(spec.path).schema().to_arrow())
        return ds.dataset(spec.path, format="parquet").schema
    except (OSError, pa.ArrowException, deltalake.exceptions.DeltaError) as error:
        raise LakeError(
            f"source {spec.name!r} cannot be read at {spec.path} ({type(error).__name__}: {error}). Pushed "
            "values take their types from it. Check the path, from the folder this process runs in."
        ) from error


def plain_values(column: pd.Series) -> list[Any]:
    """The column's values as Python objects, None where null."""
    return [None if _is_null(value) else value for value in column.tolist()]


def converted(values: Sequence[Any], wanted: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """The values as an array of the type, null where one cannot be; and why not, by row."""
    convert = _converter(wanted)
    found: list[Any] = [None] * len(values)
    faults: dict[int, str] = {}
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            found[row] = convert(value)
            pa.scalar(found[row], wanted)
        except (ValueError, TypeError, OverflowError, InvalidOperation, pa.ArrowException):
            found[row] = None
            faults[row] = f"{_shown(value)} is no {wanted}"
    return pa.array(found, wanted), faults


def instant(value: Any) -> int:
    """Microseconds since 1970 UTC of a timestamp, datetime, date or ISO text; without a zone it is UTC.

    Raises:
        ValueError: anything else, numbers among it: nobody can tell seconds from milliseconds.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, pd.Timestamp):
        value = value.floor("us").to_pydatetime()
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is no instant")
    zoned = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    return (zoned - _EPOCH) // timedelta(microseconds=1)


def whole_number(value: Any) -> int:
    """The integer that a value is, whatever type bears it; ValueError for any other."""
    if isinstance(value, bool | np.bool_):
        raise ValueError("a truth value is no number")
    if isinstance(value, str):
        return int(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating | Decimal) and value == int(value):
        return int(value)
    raise ValueError(f"{value!r} is no whole number")


def text_value(value: Any) -> str:
    """Text; bytes that are not UTF-8 get U+FFFD, as in the batch."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value.encode("utf-8", errors="replace").decode("utf-8")


def _converter(wanted: pa.DataType) -> Callable[[Any], Any]:
    kinds: list[tuple[Callable[[pa.DataType], bool], Callable[[Any], Any]]] = [
        (pa.types.is_integer, whole_number),
        (pa.types.is_floating, _number),
        (pa.types.is_decimal, lambda value: _decimal(value, wanted)),
        (pa.types.is_boolean, _truth),
        (pa.types.is_timestamp, _utc if wanted == pa.timestamp("us", "UTC") else _naive),
        (pa.types.is_date, lambda value: _naive(value).date()),
        (pa.types.is_binary, lambda value: value.encode() if isinstance(value, str) else bytes(value)),
        (pa.types.is_large_binary, lambda value: value.encode() if isinstance(value, str) else bytes(value)),
        (pa.types.is_string, text_value),
        (pa.types.is_large_string, text_value),
    ]
    return next((convert for fits, convert in kinds if fits(wanted)), lambda value: value)


def _utc(value: Any) -> datetime:
    return _EPOCH + timedelta(microseconds=instant(value))


def _naive(value: Any) -> datetime:
    return _utc(value).replace(tzinfo=None)


def _number(value: Any) -> float:
    if isinstance(value, bool | np.bool_ | str):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _decimal(value: Any, wanted: pa.Decimal128Type) -> Decimal:
    """The number at the column's scale; ValueError where digits would be lost."""
    if isinstance(value, bool | np.bool_):
        raise ValueError("a truth value is no number")
    given = Decimal(str(value))
    exact = given.quantize(Decimal(1).scaleb(-wanted.scale))
    if exact != given:
        raise ValueError(f"{value!r} has more than {wanted.scale} digits after the point")
    return exact


def _truth(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{value!r} is neither true nor false")
    return bool(value)


def _is_null(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
