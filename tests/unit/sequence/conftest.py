"""A tiny profile and histories written as literal rows."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.identity import text_id

NO_GROUP = bytes(16)


@pytest.fixture
def profile() -> Profile:
    source = SourceSpec(name="s", path="raw/s", event_at="t")
    purchases = Modality(
        "purchases", source, text="{a}", group_by=("category", "department"), amounts=("price",), max_events=3
    )
    visits = Modality("visits", source, text="{b}", max_events=2)
    household = Modality("household", source, text="{c}", kind="tabular")
    entity = EntityRef(name="user", join_key="user_id", value_type="STRING")
    return Profile("journey", entity, [purchases, visits, household], window=timedelta(days=10), max_groups=3)


@pytest.fixture
def instant() -> Callable[[str], int]:
    """Microseconds since 1970 of an ISO instant in UTC."""

    def micros(text: str) -> int:
        return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000

    return micros


@pytest.fixture
def sequence_rows(profile: Profile) -> Callable[..., dict]:
    """A row of behaviour_sequences from events (event_at, known_at, text, groups, amounts)."""

    def row(user: bytes, modality: str, events: Sequence[tuple], batch: str = "b") -> dict:
        declared = next(m for m in profile.modalities if m.name == modality)
        groups = [
            b"".join(NO_GROUP if name is None else text_id(name) for name in event[3]) for event in events
        ]
        return {
            S.MODALITY: modality,
            S.MODALITY_DIGEST: declared.sequence_digest,
            S.USER: user,
            S.USER_KEY: user.decode(),
            S.USER_BUCKET: 0,
            S.MONTH: "2017-01",
            S.BATCH: batch,
            S.NUM_EVENTS: len(events),
            S.EVENT_AT: [event[0] for event in events],
            S.KNOWN_AT: [event[1] for event in events],
            S.TEXT_ID: [text_id(event[2]) for event in events],
            S.GROUPS: groups,
            S.AMOUNTS: [list(event[4]) for event in events],
        }

    return row


@pytest.fixture
def table_of() -> Callable[..., pa.Table]:
    """Literal rows as Arrow, behaviour_sequences unless told otherwise."""

    def table(rows: list[dict], schema: pa.Schema = S.BEHAVIOUR_SEQUENCES) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=schema)

    return table
