"""A lake as release 0.1.0 wrote it, frozen: nothing here follows ``schemas.py``. Not to be edited."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

_AT = pa.timestamp("us", tz="UTC")
_STRING, _BINARY, _INT = pa.string(), pa.binary(), pa.int32()
_WHEN = datetime(2017, 12, 1, tzinfo=UTC)

TABLES: dict[str, list[tuple[str, pa.DataType]]] = {
    "event_texts": [("text_id", _BINARY), ("text", _STRING)],
    "event_vectors": [("encoder_id", _STRING), ("text_id", _BINARY), ("vector", _BINARY)],
    "behaviour_sequences": [
        ("modality", _STRING), ("modality_digest", _STRING), ("user", _BINARY), ("user_key", _STRING),
        ("user_bucket", _INT), ("month", _STRING), ("batch", _STRING), ("num_events", _INT),
        ("event_at", pa.list_(_AT)), ("known_at", pa.list_(_AT)), ("text_id", pa.list_(_BINARY)),
        ("groups", pa.list_(_BINARY)), ("amounts", pa.list_(pa.list_(pa.float64()))),
    ],
    "profile_rows": [
        ("modality", _STRING), ("modality_digest", _STRING), ("user", _BINARY), ("user_key", _STRING),
        ("user_bucket", _INT), ("batch", _STRING), ("event_at", _AT), ("known_at", _AT),
        ("text_id", _BINARY),
    ],
    "user_prefixes": [
        ("profile", _STRING), ("user", _BINARY), ("user_key", _STRING), ("user_bucket", _INT),
        ("batch", _STRING), ("cutoff", _AT), ("prefix_id", _STRING), ("prefix_digest", _STRING),
        ("visible_digest", _STRING), ("as_of", _AT), ("num_events", _INT), ("num_tokens", _INT),
        ("tokens_dtype", _STRING), ("tokens", _BINARY), ("positions", _BINARY),
        ("content_digest", _STRING), ("kv_scheme", _STRING), ("kv", _BINARY),
    ],
    "scenario_embeddings": [
        ("scenario", _STRING), ("scenario_id", _STRING), ("user", _BINARY), ("user_key", _STRING),
        ("user_bucket", _INT), ("batch", _STRING), ("cutoff", _AT), ("embedding_id", _STRING),
        ("embedding", pa.list_(pa.float32())), ("as_of", _AT), ("num_events", _INT), ("served_at", _AT),
    ],
    "job_runs": [
        ("job", _STRING), ("run", _STRING), ("state", _STRING), ("scenario", _STRING),
        ("scenario_id", _STRING), ("started_at", _AT), ("ended_at", _AT), ("complete_to", _AT),
        ("source_versions", _STRING), ("counts", _STRING), ("message", _STRING),
    ],
}  # fmt: skip
PARTITIONS = {
    "event_vectors": ["encoder_id"],
    "behaviour_sequences": ["month", "user_bucket"],
    "profile_rows": ["user_bucket"],
    "user_prefixes": ["profile", "user_bucket"],
    "scenario_embeddings": ["scenario", "user_bucket"],
}
_VALUES = {_STRING: "x", _BINARY: b"0123456789abcdef", _INT: 1, _AT: _WHEN}


def write_layout_1(lake: Path) -> None:
    """One row in every table, by the columns of the release."""
    for name, columns in TABLES.items():
        row = {column: _value(kind) for column, kind in columns}
        table = pa.Table.from_pylist([row], schema=pa.schema(columns))
        write_deltalake(lake / name, table, partition_by=PARTITIONS.get(name))


def _value(kind: pa.DataType) -> object:
    if pa.types.is_list(kind):
        return [_value(kind.value_type)]
    return 1.0 if pa.types.is_floating(kind) else _VALUES[kind]
