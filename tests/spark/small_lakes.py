"""Lakes by delta-rs that need no engine: the shop with made-up vectors, and every table of users filled."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from qanchor_plugin import schemas as S
from qanchor_plugin.engine.event_vectors import write_snapshot
from qanchor_plugin.identity import text_id
from tests.shop import EVENTS, ShopLake, home_row, user

ENCODER = "e" * 32
ALL_TABLES = {**S.TABLES, S.PAIRS_TABLE: S.USERU_PAIRS}
WITH_USERS = sorted(name for name, schema in ALL_TABLES.items() if S.USER in schema.names)


def plain_lake(folder: Path) -> ShopLake:
    """Events, texts, home rows and vectors of the shop's households 1 to 3."""
    lake = ShopLake(folder)
    for household_id, events in EVENTS.items():
        lake.add_events(household_id, events)
    lake.append("profile_rows", [home_row(1, "small")])
    lake.add_texts(["small home"])
    add_vectors(lake)
    return lake


def add_vectors(lake: ShopLake) -> None:
    """Every text has a vector in the table and in the snapshot."""
    texts = sorted(lake.texts)
    vectors = np.arange(4 * len(texts)).reshape(-1, 4).astype(np.float16)
    rows = [
        {S.ENCODER_ID: ENCODER, S.TEXT_ID: text_id(text), S.VECTOR: vector.tobytes()}
        for text, vector in zip(texts, vectors, strict=True)
    ]
    lake.append("event_vectors", rows)
    ids = np.stack([np.frombuffer(text_id(text), np.uint8) for text in texts])
    write_snapshot(lake.folder / "_vectors" / ENCODER, encoder_id=ENCODER, ids=ids, vectors=vectors)


def fill(folder: Path, name: str, household_id: int, **given: Any) -> None:
    """One made-up row of the household stands in the table, whatever its columns are."""
    row = made_up(name, household_id, **given)
    table = pa.Table.from_pylist([row], schema=ALL_TABLES[name])
    write_deltalake(folder / name, table, mode="append", partition_by=list(S.PARTITIONED_BY.get(name, ())))


def made_up(name: str, household_id: int, **given: Any) -> dict[str, Any]:
    """A row of the table about the household, each column some value of its type."""
    schema = ALL_TABLES[name]
    row = {one.name: _any_value(one.type) for one in schema}
    row |= {S.USER: user(household_id), S.USER_KEY: json.dumps({"household_id": household_id})}
    if S.TEXT_ID in schema.names and not pa.types.is_list(schema.field(S.TEXT_ID).type):
        row[S.TEXT_ID] = text_id("dairy")
    return {column: value for column, value in {**row, **given}.items() if column in schema.names}


def _any_value(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return [_any_value(kind.value_type)]
    if pa.types.is_timestamp(kind):
        return datetime(2017, 12, 1, tzinfo=UTC)
    if pa.types.is_boolean(kind):
        return True
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return 1
    return b"0123456789abcdef" if pa.types.is_binary(kind) else "x"
