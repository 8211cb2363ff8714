"""Work on several users that fails for some of them, without Spark."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import EngineError, QAnchorError
from qanchor_plugin.sequence import slice_at
from qanchor_plugin.sequence.next_change import next_change
from spark_jobs import build_prefixes
from spark_jobs.build_prefixes import prefix_id_of
from spark_jobs.engines import AskedGroup, EngineRef
from spark_jobs.isolation import FAILED_USERS, MAX_NAMED, NUM_FAILED_USERS, apart, message_of, told
from spark_jobs.users import COLUMNS, histories
from tests.shop import PROFILE, at, sequence_row


class Held:
    """What an accumulator is to its task and its driver."""

    def __init__(self) -> None:
        self.value: dict[str, str] = {}

    def add(self, faults: dict[str, str]) -> None:
        self.value |= faults


def rows(*users: int) -> pa.Table:
    return pa.table({S.USER: [bytes([one]) for one in users], S.USER_KEY: [str(one) for one in users]})


def failing(*poisoned: int, error: type[Exception] = ValueError) -> Any:
    def work(part: pa.Table) -> list[bytes]:
        users = part[S.USER].to_pylist()
        for one in poisoned:
            if bytes([one]) in users:
                raise error(f"user {one}")
        return users

    return work


def test_who_fails_alone_is_left_out_and_told() -> None:
    held = Held()
    assert apart(rows(1, 2, 2, 3), failing(3), held) == [b"\1", b"\2", b"\2"]  # type: ignore[arg-type]
    assert held.value == {"3": "ValueError: user 3"}


def test_a_sound_batch_is_worked_on_once() -> None:
    calls = []
    apart(rows(1, 2), lambda part: calls.append(part.num_rows) or [], Held())  # type: ignore[arg-type, func-returns-value]
    assert calls == [2]


def test_a_fault_of_all_and_a_fault_of_nobody_pass() -> None:
    held = Held()
    with pytest.raises(ValueError, match="user 1"):
        apart(rows(1, 2), failing(1, 2), held)  # type: ignore[arg-type]
    with pytest.raises(EngineError):
        apart(rows(1, 2), failing(2, error=EngineError), held)  # type: ignore[arg-type]
    assert held.value == {}


def test_the_ledger_counts_all_and_names_some() -> None:
    held = Held()
    assert told(held, num_users=3) == {}  # type: ignore[arg-type]
    held.add({f"user {number:02d}": "ValueError" for number in range(30)})
    counts = told(held, num_users=40)  # type: ignore[arg-type]
    assert counts[NUM_FAILED_USERS] == 30
    assert len(counts[FAILED_USERS]) == MAX_NAMED
    assert message_of({"shopper/ab": counts, "other": {"users": 1}}).startswith(
        "shopper/ab: 30 users were left out: user 00, user 01"
    )
    with pytest.raises(QAnchorError, match="every one of 30 users failed, such as user 00"):
        told(held, num_users=30)  # type: ignore[arg-type]


def stored(household_id: int, group: str) -> dict[str, Any]:
    """A row of behaviour as the prefixes job reads it, the standing prefix that of its event."""
    row = sequence_row(household_id, [("2017-12-10", "whole milk", group, 2.0)])
    return {name: row[name] for name in COLUMNS}


def test_the_prefixes_job_passes_over_a_user_whose_stored_rows_cannot_be_read() -> None:
    """Household 2's group id has 5 bytes; household 1's prefix stands already, so no engine runs."""
    end = at("2018-01-01")
    sound, spoilt = stored(1, "dairy"), stored(2, "dairy")
    spoilt[S.GROUPS] = [one[:5] for one in spoilt[S.GROUPS]]
    schema = pa.schema([S.BEHAVIOUR_SEQUENCES.field(name) for name in COLUMNS])
    (history,) = histories(pa.Table.from_pylist([sound], schema=schema), PROFILE)
    ref = EngineRef(
        name="demo", device="cpu", digest="d", prefix_digest="p", encoder_id="e", encoder_dim=4,
        suffix_knows_time=False,
    )  # fmt: skip
    group = AskedGroup(profile=PROFILE, engine=ref, queries=())
    stood = prefix_id_of(group, slice_at(history, PROFILE, end).visible_digest)
    facts = {"stood": [stood] * 2, "stood_change": [next_change(history, PROFILE, end)] * 2}
    rows = pa.Table.from_pylist([sound, spoilt], schema=schema)
    for name, kind in (("stood", pa.string()), ("stood_change", pa.int64())):
        rows = rows.append_column(name, pa.array(facts[name], kind))
    failed, done = Held(), []
    make = build_prefixes._builder(
        group, 8, end, "run", "no vectors are read", SimpleNamespace(add=done.append), failed, None  # type: ignore[arg-type]
    )  # fmt: skip
    assert [batch.num_rows for batch in make(iter(rows.to_batches()))] in ([], [0])
    assert list(failed.value) == ['{"household_id": 2}']
    assert "not all 16 bytes wide" in failed.value['{"household_id": 2}']
    assert done == [2]
