"""Misses of concurrent requests: one computation each, unknown users remembered, within the budget."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deltalake import write_deltalake

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import Answer, Ask
from qanchor_plugin.errors import BackendError
from qanchor_plugin.feast_ext import counters
from qanchor_plugin.feast_ext.online_misses import MissAnswerer
from qanchor_plugin.feast_ext.unknown_users import UnknownUsers
from qanchor_plugin.prefix_store.lake_state import lake_state
from tests.plugin.worker_path.workers import asks
from tests.shop import sequence_row
from tests.stub_worker import known_answer, known_vector

SECOND = 1_000_000


class GatedBackend:
    """A backend that answers known vectors when its gate opens, and notes what it was asked."""

    warm_up_seconds = 0.0

    def __init__(self, *, num_slots: int = 8) -> None:
        self.num_slots = num_slots
        self.gate = threading.Event()
        self.calls: list[tuple[list[bytes], list[str]]] = []
        self.failure: Exception | None = None

    def prepare(self, asked: Sequence[Ask]) -> None:
        """Nothing."""

    def embed(
        self, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask], *, seconds: float | None = None
    ) -> list[list[Answer | None]]:
        """After the gate."""
        self.calls.append((list(users), [ask.query for ask in asked]))
        self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        return [[known_answer(user, ask, cutoff) for ask in asked] for user in users]

    def close(self) -> None:
        """Nothing."""


class Asking:
    """Requests in threads of their own."""

    def __init__(self, misses: MissAnswerer) -> None:
        self._misses = misses
        self.found: dict[int, object] = {}
        self._threads: list[threading.Thread] = []

    def ask(self, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask]) -> None:
        """A request is under way."""
        number = len(self._threads)
        thread = threading.Thread(target=self._run, args=(number, users, cutoff, asked))
        self._threads.append(thread)
        thread.start()

    def _run(self, number: int, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask]) -> None:
        try:
            self.found[number] = self._misses.answer(users, cutoff, asked)
        except BackendError as error:
            self.found[number] = error

    def wait(self) -> dict[int, object]:
        """What each request was answered."""
        for thread in self._threads:
            thread.join(timeout=20)
        return self.found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def counted() -> float:
    return counters.COALESCED._value.get()


def test_identical_concurrent_misses_are_computed_once_and_all_get_the_answer():
    backend = GatedBackend()
    before = counted()
    with closing(MissAnswerer(backend, max_compute_ms=20_000)) as misses:
        asking = Asking(misses)
        asking.ask([b"a", b"b"], 5 * SECOND, asks("wine"))
        until(lambda: len(backend.calls) == 1)
        for late in range(6):
            asking.ask([b"b", b"a"], 5 * SECOND + late, asks("wine"))
        until(lambda: counted() == before + 12)
        backend.gate.set()
        found = asking.wait()
    assert backend.calls == [([b"a", b"b"], ["wine"])]
    for number in range(1, 7):
        for user, (answer,) in zip((b"b", b"a"), found[number], strict=True):
            np.testing.assert_array_equal(answer.embedding, known_vector(user, "wine"))
            assert answer.cutoff == 5 * SECOND


@pytest.mark.parametrize(
    ("cutoff", "asked"),
    [(5 * SECOND, asks("milk")), (7 * SECOND, asks("wine")), (4 * SECOND, asks("wine")),
     (5 * SECOND, [replace(asks("wine")[0], engine_digest="1" * 32)])],
)  # fmt: skip
def test_another_query_engine_or_instant_is_another_computation(cutoff: int, asked: list[Ask]):
    backend = GatedBackend()
    with closing(MissAnswerer(backend, max_compute_ms=20_000)) as misses:
        asking = Asking(misses)
        asking.ask([b"a"], 5 * SECOND, asks("wine"))
        until(lambda: len(backend.calls) == 1)
        asking.ask([b"a"], cutoff, asked)
        until(lambda: len(backend.calls) == 2)
        backend.gate.set()
        asking.wait()


def test_whoever_has_just_written_an_event_does_not_join_an_older_computation():
    backend, state = GatedBackend(), [1]
    with closing(MissAnswerer(backend, max_compute_ms=20_000, lake_state=lambda: state[0])) as misses:
        asking = Asking(misses)
        asking.ask([b"a"], 5 * SECOND, asks("wine"))
        until(lambda: len(backend.calls) == 1)
        state[0] = 2
        asking.ask([b"a"], 5 * SECOND, asks("wine"))
        until(lambda: len(backend.calls) == 2)
        backend.gate.set()
        asking.wait()


def test_only_the_misses_that_nobody_computes_go_to_the_backend():
    backend = GatedBackend()
    with closing(MissAnswerer(backend, max_compute_ms=20_000)) as misses:
        asking = Asking(misses)
        asking.ask([b"a", b"b"], 5 * SECOND, asks("wine"))
        until(lambda: len(backend.calls) == 1)
        asking.ask([b"b", b"c"], 5 * SECOND, asks("wine"))
        until(lambda: len(backend.calls) == 2)
        backend.gate.set()
        found = asking.wait()
    assert backend.calls[1] == ([b"c"], ["wine"])
    np.testing.assert_array_equal(found[1][0][0].embedding, known_vector(b"b", "wine"))


def test_a_failure_is_everybodys_and_the_next_request_computes_anew():
    backend = GatedBackend()
    backend.failure = BackendError("no luck")
    with closing(MissAnswerer(backend, max_compute_ms=20_000)) as misses:
        asking = Asking(misses)
        asking.ask([b"a"], 5 * SECOND, asks("wine"))
        until(lambda: len(backend.calls) == 1)
        before = counted()
        asking.ask([b"a"], 5 * SECOND, asks("wine"))
        until(lambda: counted() == before + 1)
        backend.gate.set()
        found = asking.wait()
        assert all(isinstance(one, BackendError) for one in found.values())
        backend.failure = None
        assert misses.answer([b"a"], 5 * SECOND, asks("wine"))[0][0] is not None


def test_a_joined_computation_is_waited_for_no_longer_than_the_budget():
    backend = GatedBackend()
    misses = MissAnswerer(backend, max_compute_ms=200)
    asking = Asking(misses)
    asking.ask([b"a"], 5 * SECOND, asks("wine"))
    until(lambda: len(backend.calls) == 1)
    started = time.monotonic()
    with pytest.raises(BackendError, match="in time"):
        misses.answer([b"a"], 5 * SECOND, asks("wine"))
    assert time.monotonic() - started < 1.2
    backend.gate.set()
    asking.wait()
    misses.close()


def test_one_request_more_than_there_are_slots_is_busy_at_once():
    backend = GatedBackend(num_slots=1)
    with closing(MissAnswerer(backend, max_compute_ms=20_000)) as misses:
        asking = Asking(misses)
        asking.ask([b"a"], 5 * SECOND, asks("wine"))
        until(lambda: len(backend.calls) == 1)
        with pytest.raises(BackendError, match="1 other requests are computing"):
            misses.answer([b"b"], 5 * SECOND, asks("wine"))
        backend.gate.set()
        asking.wait()
        assert misses.answer([b"b"], 5 * SECOND, asks("wine"))[0][0] is not None


def test_an_unknown_user_is_asked_once_until_the_lake_moves():
    backend, state = GatedBackend(), [1]
    backend.gate.set()
    remembered = counters.UNKNOWN_USERS.labels("remembered")
    with closing(MissAnswerer(backend, max_compute_ms=20_000, lake_state=lambda: state[0])) as misses:
        before = remembered._value.get()
        for _ in range(3):
            assert misses.answer([b"nobody"], 5 * SECOND, asks("wine", "milk")) == [[None, None]]
        assert len(backend.calls) == 1
        assert remembered._value.get() == before + 2
        assert misses.answer([b"nobody", b"a"], 5 * SECOND, asks("wine"))[1][0] is not None
        assert backend.calls[1] == ([b"a"], ["wine"])
        state[0] = 2
        misses.answer([b"nobody"], 5 * SECOND, asks("wine"))
        assert len(backend.calls) == 3


def test_unknown_users_are_bounded_and_forgotten_after_a_while():
    unknown = UnknownUsers(seconds=0.1, max_users=2)
    unknown.among("p", [], state=1)
    unknown.remember("p", [b"a", b"b", b"c"], state=1)
    assert unknown.among("p", [b"a", b"b", b"c"], state=1) == {b"b", b"c"}
    assert unknown.among("another", [b"b"], state=1) == set()
    time.sleep(0.12)
    assert unknown.among("p", [b"b", b"c"], state=1) == set()
    unknown.among("p", [], state=2)
    unknown.remember("p", [b"a"], state=1)
    assert unknown.among("p", [b"a"], state=2) == set()


def test_the_lakes_state_moves_with_every_commit_of_behaviour_and_only_then(tmp_path: Path):
    import pyarrow as pa

    rows = [sequence_row(1, [("2017-12-10", "milk", "dairy", 2.0)])]
    table = pa.Table.from_pylist(rows, schema=S.BEHAVIOUR_SEQUENCES)
    states = [lake_state(str(tmp_path))]
    for _ in range(2):
        time.sleep(0.02)
        write_deltalake(tmp_path / "behaviour_sequences", table, mode="append")
        states.append(lake_state(str(tmp_path)))
    assert len(set(states)) == 3
    write_deltalake(tmp_path / "job_runs", S.JOB_RUNS.empty_table())
    assert lake_state(str(tmp_path)) == states[-1]
    uri = f"file://{tmp_path}"
    assert lake_state(uri) == (1, -1, -1)
