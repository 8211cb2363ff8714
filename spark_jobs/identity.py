"""Users by Feast's serialised entity key, version 3.

The layout is that of ``feast.infra.key_encoding_utils.serialize_entity_key`` (Feast 0.67), written here
so that a Python worker need not import Feast; a test holds the two equal.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, StringType, StructField, StructType

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import EntityRef
from qanchor_plugin.errors import DeclarationError

_STRING = 2
_CODES = {"BYTES": 1, "STRING": _STRING, "INT32": 3, "INT64": 4}
SPARK_TYPES = {"BYTES": "binary", "STRING": "string", "INT32": "int", "INT64": "bigint"}
"""Feast's value types that a join key may have, and the Spark type each is read as."""

_USER_STRUCT = StructType([StructField(S.USER, BinaryType()), StructField(S.USER_KEY, StringType())])


def with_user_key(df: DataFrame, entities: Sequence[EntityRef]) -> DataFrame:
    """``df`` with ``user`` (binary, null where any key is null) and ``user_key`` (JSON) added.

    Args:
        df: has every entity's join key as a column; keys that cannot be cast are null.
        entities: the profile's, in declared order.

    Raises:
        DeclarationError: a join key of a value type that Feast cannot serialise.
    """
    check_entities(entities)
    keys = F.struct(*[key_column(entity).alias(entity.join_key) for entity in entities])
    encode = F.arrow_udf(_encoder(tuple(entities)), returnType=_USER_STRUCT)  # type: ignore[call-overload]
    added = df.withColumn("__user", encode(keys))
    return added.select(*df.columns, F.col(f"__user.{S.USER}"), F.col(f"__user.{S.USER_KEY}"))


def key_column(entity: EntityRef) -> Column:
    """The join key as its Feast type; null where the value is not of it."""
    return F.col(f"`{entity.join_key}`").try_cast(SPARK_TYPES[entity.value_type])


def check_entities(entities: Sequence[EntityRef]) -> None:
    """Nothing when every join key can be serialised; else a DeclarationError."""
    for entity in entities:
        if entity.value_type not in _CODES:
            raise DeclarationError(
                f"entity {entity.name!r} has value type {entity.value_type}; accepted for a join key are "
                f"{sorted(_CODES)}. Declare it as one of these."
            )


def entity_key(entities: Sequence[EntityRef], values: Sequence[Any]) -> bytes:
    """Feast's entity key, version 3: keys sorted by name, then their values with type and length."""
    pairs = sorted(zip(entities, values, strict=True), key=lambda pair: pair[0].join_key)
    parts = [struct.pack("<I", len(pairs))]
    for entity, _ in pairs:
        name = entity.join_key.encode()
        parts.append(struct.pack("<II", _STRING, len(name)) + name)
    for entity, value in pairs:
        body = _value_bytes(entity.value_type, value)
        parts.append(struct.pack("<II", _CODES[entity.value_type], len(body)) + body)
    return b"".join(parts)


def readable_key(entities: Sequence[EntityRef], values: Sequence[Any]) -> str:
    """The key as JSON, such as ``{"household_id": 7}``; byte values in hex."""
    plain = [value.hex() if isinstance(value, bytes) else value for value in values]
    named = {entity.join_key: value for entity, value in zip(entities, plain, strict=True)}
    return json.dumps(named, ensure_ascii=False)


def _value_bytes(value_type: str, value: Any) -> bytes:
    if value_type == "STRING":
        return value.encode()
    if value_type == "BYTES":
        return value
    return struct.pack("<q" if value_type == "INT64" else "<i", value)


def encode_users(
    columns: Sequence[Sequence[Any]], entities: Sequence[EntityRef]
) -> tuple[list[bytes | None], list[str | None]]:
    """The entity key and the readable key of every row; each distinct key is made once.

    Args:
        columns: one list of values a join key, in the entities' order.
    """
    known: dict[tuple[Any, ...], tuple[bytes | None, str | None]] = {}
    users: list[bytes | None] = []
    names: list[str | None] = []
    for values in zip(*columns, strict=True):
        if values not in known:
            absent = any(value is None for value in values)
            known[values] = (
                (None, None) if absent else (entity_key(entities, values), readable_key(entities, values))
            )
        user, name = known[values]
        users.append(user)
        names.append(name)
    return users, names


def _encoder(entities: tuple[EntityRef, ...]) -> Any:
    def encode(keys: pa.Array) -> pa.Array:
        columns = [keys.field(position).to_pylist() for position in range(len(entities))]
        users, names = encode_users(columns, entities)
        return pa.StructArray.from_arrays(
            [pa.array(users, pa.binary()), pa.array(names, pa.string())], [S.USER, S.USER_KEY]
        )

    # Spark reads the kind of an Arrow UDF from its annotations.
    encode.__annotations__ = {"keys": pa.Array, "return": pa.Array}
    return encode
