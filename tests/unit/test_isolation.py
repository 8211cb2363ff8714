"""Work on several users that fails for some of them, without Spark."""

from typing import Any

import pyarrow as pa
import pytest

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import EngineError, QAnchorError
from spark_jobs.isolation import FAILED_USERS, MAX_NAMED, NUM_FAILED_USERS, apart, message_of, told


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
