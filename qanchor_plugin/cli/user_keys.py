"""``--user household_id=7`` as the key under which the lake knows that user."""

from collections.abc import Sequence
from typing import Any

from qanchor_plugin.declare import EntityRef
from qanchor_plugin.errors import InputDataError


def parse_user(text: str, entities: Sequence[EntityRef]) -> dict[str, Any]:
    """Join key to value, each of its declared type.

    Args:
        text: ``key=value``, ``key=value,key=value`` for a composite key, or the bare value of a
            single key.
        entities: the profile's.

    Raises:
        InputDataError: another key, a key left out, or a value that is not of the key's type.
    """
    keys = [entity.join_key for entity in entities]
    given = _pairs(text, keys)
    if set(given) != set(keys):
        wanted = ",".join(f"{key}=VALUE" for key in keys)
        bare = " or --user VALUE" if len(keys) == 1 else ""
        raise InputDataError(
            f"--user {text!r} names {sorted(given)}; the profile's key is {keys}. "
            f"Write --user {wanted}{bare}."
        )
    return {entity.join_key: _typed(entity, given[entity.join_key]) for entity in entities}


def user_bytes(key: dict[str, Any], entities: Sequence[EntityRef]) -> bytes:
    """Feast's serialised entity key (version 3) of a parsed user."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    fields = {"INT64": "int64_val", "INT32": "int32_val", "STRING": "string_val", "BYTES": "bytes_val"}
    values = [Value(**{fields[entity.value_type]: key[entity.join_key]}) for entity in entities]
    proto = EntityKey(join_keys=[entity.join_key for entity in entities], entity_values=values)
    return serialize_entity_key(proto, entity_key_serialization_version=3)


def _pairs(text: str, keys: Sequence[str]) -> dict[str, str]:
    if len(keys) == 1:
        name, mark, value = text.partition("=")
        return {name: value} if mark and name.isidentifier() else {keys[0]: text}
    return dict(part.partition("=")[::2] for part in text.split(","))


def _typed(entity: EntityRef, text: str) -> Any:
    if entity.value_type == "STRING":
        return text
    try:
        if entity.value_type in ("INT64", "INT32"):
            return int(text)
        if entity.value_type == "BYTES":
            return bytes.fromhex(text)
    except ValueError as error:
        raise InputDataError(
            f"--user {entity.join_key}={text!r}: the value is not of type {entity.value_type} "
            "(whole numbers for INT64 and INT32, hexadecimal digits for BYTES)."
        ) from error
    raise InputDataError(
        f"entity {entity.name!r} has value type {entity.value_type}, which cannot be a key; "
        "accepted are INT64, INT32, STRING and BYTES."
    )
