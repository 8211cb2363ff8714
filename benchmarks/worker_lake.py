"""A lake without Spark: users with random purchases, written by delta-rs, every text with its vector."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.engine.event_vectors import write_snapshot
from qanchor_plugin.identity import text_id

END = datetime(2024, 7, 1, tzinfo=UTC)
END_MICROS = round(END.timestamp() * 1_000_000)
_NUM_TEXTS = 200
_YEAR_MICROS = 360 * 86_400 * 1_000_000


def profile_of(max_events: int) -> Profile:
    """One profile over one table of purchases, with at most that many event tokens."""
    modality = Modality(
        "purchases",
        SourceSpec(name="purchases", path="purchases", event_at="bought_at"),
        "{product}",
        max_events=max_events,
    )
    entity = EntityRef(name="user", join_key="user_id", value_type="INT64")
    return Profile("shoppers", entity, [modality], window=timedelta(days=365))


def user_of(number: int) -> bytes:
    """A key."""
    return f"user-{number:06d}".encode()


def write_lake(folder: Path, engine: Any, profile: Profile, *, num_users: int, num_events: int) -> None:
    """The sequences of ``num_users`` users, their texts, and a snapshot of the vectors."""
    random = np.random.default_rng(7)
    texts = [f"product {number}" for number in range(_NUM_TEXTS)]
    ids = [text_id(text) for text in texts]
    rows = [_row(number, profile, ids, random, num_events) for number in range(num_users)]
    for name, table in (
        ("behaviour_sequences", rows),
        ("event_texts", [{S.TEXT_ID: one, S.TEXT: text} for one, text in zip(ids, texts, strict=True)]),
    ):
        write_deltalake(
            folder / name,
            pa.Table.from_pylist(table, schema=S.TABLES[name]),
            partition_by=list(S.PARTITIONED_BY[name]) or None,
        )
    ordered = sorted(zip(ids, texts, strict=True))
    write_snapshot(
        folder / "_vectors" / engine.encoder_id,
        encoder_id=engine.encoder_id,
        ids=np.stack([np.frombuffer(one, np.uint8) for one, _ in ordered]),
        vectors=engine.encode_texts([text for _, text in ordered]),
    )


def _row(
    number: int, profile: Profile, ids: list[bytes], random: np.random.Generator, num_events: int
) -> dict[str, Any]:
    instants = np.sort(END_MICROS - random.integers(1, _YEAR_MICROS, num_events)).tolist()
    return {
        S.MODALITY: "purchases",
        S.MODALITY_DIGEST: profile.modalities[0].sequence_digest,
        S.USER: user_of(number),
        S.USER_KEY: f'{{"user_id": {number}}}',
        S.USER_BUCKET: 0,
        S.MONTH: "2024-06",
        S.BATCH: "r1",
        S.NUM_EVENTS: num_events,
        S.EVENT_AT: instants,
        S.KNOWN_AT: instants,
        S.TEXT_ID: [ids[one] for one in random.integers(0, len(ids), num_events)],
        S.GROUPS: [b""] * num_events,
        S.AMOUNTS: [[]] * num_events,
    }
