"""A tiny lake written by delta-rs from literal rows, and the profile it belongs to: no Spark needed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from qanchor_plugin import schemas as S
from qanchor_plugin.backend.engines import shared_engine
from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.engine.event_vectors import write_snapshot
from qanchor_plugin.identity import text_id

CLOCK = datetime(2018, 1, 1, tzinfo=UTC)
HOUSEHOLD = EntityRef(name="household", join_key="household_id", value_type="INT64")
PURCHASES = Modality(
    "purchases",
    SourceSpec(name="raw_purchases", path="raw/purchases", event_at="bought_at"),
    "{product}",
    group_by=("category",),
    amounts=("amount",),
)
HOME = Modality(
    "home", SourceSpec(name="raw_home", path="raw/home", event_at="at"), "{kind} home", kind="tabular"
)
PROFILE = Profile("journey", HOUSEHOLD, [PURCHASES, HOME], window=timedelta(days=30))


def at(text: str) -> int:
    """Microseconds since 1970 of an ISO instant in UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def user(household_id: int) -> bytes:
    """The serialised entity key."""
    key = EntityKey(join_keys=["household_id"], entity_values=[Value(int64_val=household_id)])
    return serialize_entity_key(key, entity_key_serialization_version=3)


EVENTS: dict[int, list[tuple[str, str, str, float]]] = {
    1: [
        ("2017-12-10", "whole milk", "dairy", 2.0),
        ("2017-12-20", "rye bread", "bakery", 3.5),
        ("2017-12-31", "free range eggs", "dairy", 4.0),
    ],
    2: [("2017-12-15", "red wine", "drinks", 12.0)],
    3: [("2016-01-01", "whole milk", "dairy", 2.0)],
}
"""Household 3 is known and has nothing in the window; household 4 was never seen."""


def sequence_row(household_id: int, events: Sequence[tuple[str, str, str, float]]) -> dict[str, Any]:
    """One row of behaviour_sequences."""
    instants = [at(event[0]) for event in events]
    return {
        S.MODALITY: "purchases",
        S.MODALITY_DIGEST: PURCHASES.sequence_digest,
        S.USER: user(household_id),
        S.USER_KEY: f'{{"household_id": {household_id}}}',
        S.USER_BUCKET: 0,
        S.MONTH: events[0][0][:7],
        S.BATCH: "r1",
        S.NUM_EVENTS: len(events),
        S.EVENT_AT: instants,
        S.KNOWN_AT: instants,
        S.TEXT_ID: [text_id(event[1]) for event in events],
        S.GROUPS: [text_id(event[2]) for event in events],
        S.AMOUNTS: [[event[3]] for event in events],
    }


def home_row(household_id: int, kind: str) -> dict[str, Any]:
    """One row of profile_rows."""
    return {
        S.MODALITY: "home",
        S.MODALITY_DIGEST: HOME.sequence_digest,
        S.USER: user(household_id),
        S.USER_KEY: f'{{"household_id": {household_id}}}',
        S.USER_BUCKET: 0,
        S.BATCH: "r1",
        S.EVENT_AT: at("2017-01-01"),
        S.KNOWN_AT: at("2017-01-01"),
        S.TEXT_ID: text_id(f"{kind} home"),
    }


@dataclass
class ShopLake:
    """The lake's folder, and ways to add to it."""

    folder: Path
    texts: set[str] = field(default_factory=set)

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Literal rows are in the table."""
        table = pa.Table.from_pylist(rows, schema=S.TABLES[name])
        write_deltalake(
            self.folder / name, table, mode="append", partition_by=list(S.PARTITIONED_BY[name]) or None
        )

    def add_events(self, household_id: int, events: Sequence[tuple[str, str, str, float]]) -> None:
        """Events with their texts; no vectors."""
        self.append("behaviour_sequences", [sequence_row(household_id, events)])
        self.add_texts([word for event in events for word in event[1:3]])

    def add_texts(self, texts: Sequence[str]) -> None:
        """Texts that stand in event_texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self.texts]
        if new:
            self.append("event_texts", [{S.TEXT_ID: text_id(text), S.TEXT: text} for text in new])
        self.texts.update(new)

    def write_vectors(self, engine: Any) -> None:
        """A snapshot of vectors of every text so far."""
        texts = sorted(self.texts)
        ids = np.stack([np.frombuffer(text_id(text), np.uint8) for text in texts])
        folder = self.folder / "_vectors" / engine.encoder_id
        write_snapshot(folder, encoder_id=engine.encoder_id, ids=ids, vectors=vectors_of(engine, texts))

    def complete(self, scenario: str, scenario_id: str, to: str, state: str = "succeeded") -> None:
        """A run said that the scenario is complete up to an instant."""
        run = {
            S.JOB: "embed_scenarios",
            S.RUN: f"run-{to}",
            S.STATE: state,
            S.SCENARIO: scenario,
            S.SCENARIO_ID: scenario_id,
            S.STARTED_AT: at(to),
            S.ENDED_AT: at(to),
            S.COMPLETE_TO: at(to),
            S.SOURCE_VERSIONS: "{}",
            S.COUNTS: "{}",
            S.MESSAGE: "",
        }
        self.append("job_runs", [run])


def vectors_of(engine: Any, texts: Sequence[str]) -> np.ndarray:
    """The engine's own vectors of these texts, encoded once a process."""
    return np.stack([_vector(engine, text) for text in texts])


@cache
def _vector(engine: Any, text: str) -> np.ndarray:
    return engine.encode_texts([text])[0]


def shop_lake(folder: Path, engine: Any) -> ShopLake:
    """The lake of :data:`EVENTS`, every text with its vector."""
    lake = ShopLake(folder)
    for household_id, events in EVENTS.items():
        lake.add_events(household_id, events)
    lake.append("profile_rows", [home_row(1, "small")])
    lake.add_texts(["small home"])
    lake.write_vectors(engine)
    return lake


def demo_engine() -> Any:
    """The real demo engine on the CPU, loaded once a test process and shared with every backend."""
    return shared_engine("demo", "cpu")
