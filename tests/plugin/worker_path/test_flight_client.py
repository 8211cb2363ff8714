"""The client against real Flight servers in processes of their own: right answers, or an error in time."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from qanchor_plugin.backend.flight import FlightBackend
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.errors import BackendError, BrokenAnswerError, DeadlineError, QAnchorError
from qanchor_plugin.prefix_store import PrefixEntry, make_entry
from tests.plugin.worker_path.workers import StubProcess, asks, silent_server, start_stub
from tests.stub_worker import ENGINE_DIGEST, UNKNOWN, known_vector

USERS = [f"user-{number}".encode() for number in range(40)]
SLACK = 1.0
"""Seconds that a busy machine may take to notice that the time is over."""


@pytest.fixture(scope="module")
def pair() -> Iterator[list[StubProcess]]:
    """Two workers that answer."""
    started = [start_stub(), start_stub()]
    yield started
    for one in started:
        one.kill()


@pytest.fixture(scope="module")
def spoiling() -> Iterator[StubProcess]:
    """A worker that spoils its answers as the query says."""
    started = start_stub(mode="obeys")
    yield started
    started.kill()


def backend(*addresses: str, **settings: object) -> FlightBackend:
    return FlightBackend(WorkerSettings(addresses=addresses, **settings))


def check(found: list, users: list[bytes], *queries: str) -> None:
    """Every answer is the user's own, bit for bit."""
    for user, row in zip(users, found, strict=True):
        for query, answer in zip(queries, row, strict=True):
            np.testing.assert_array_equal(answer.embedding, known_vector(user, query))


def test_every_user_has_their_own_answer_in_order(pair: list[StubProcess]):
    with closing(backend(*(one.address for one in pair))) as asked:
        found = asked.embed([*USERS, UNKNOWN], 7, asks("wine", "milk"), seconds=20)
    assert found[-1] == [None, None]
    check(found[:-1], USERS, "wine", "milk")
    assert found[0][0].cutoff == 7


def prefix(user: bytes) -> PrefixEntry:
    return make_entry(
        user=user,
        prefix_id="p" * 32,
        visible_digest="v" * 32,
        as_of=5,
        num_events=1,
        tokens=np.ones((3, 4), np.float32),
        tokens_dtype="float32",
        positions=np.arange(3, dtype=np.int32),
    )


def test_prefixes_are_answered_each_at_its_own_instant(pair: list[StubProcess]):
    with closing(backend(*(one.address for one in pair))) as asked:
        found = asked.embed_prefixes([prefix(user) for user in USERS], range(40), asks("wine"))
    check(found, USERS, "wine")
    assert [row[0].cutoff for row in found] == list(range(40))


@pytest.mark.parametrize(
    "mode",
    ["wrong_engine", "wrong_scenario", "wrong_cutoff", "nan", "not_normed", "one_row_less", "wrong_count",
     "doubled", "torn"],
)  # fmt: skip
def test_no_wrong_vector_is_returned_and_the_other_worker_is_asked(
    pair: list[StubProcess], spoiling: StubProcess, mode: str
):
    with closing(backend(spoiling.address)) as alone, pytest.raises(BrokenAnswerError, match=r"worker 127"):
        alone.embed(USERS, 7, asks(mode), seconds=10)
    with closing(backend(spoiling.address, pair[0].address)) as both:
        check(both.embed(USERS, 7, asks(mode), seconds=20), USERS, mode)


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\n\r\n", bytes(range(256)) * 64])
def test_a_server_that_hangs_or_talks_garbage_costs_no_more_than_the_time_given(says: bytes):
    with silent_server(says) as address, closing(backend(address, breaker_failures=100)) as asked:
        for seconds in (0.2, 0.8):
            started = time.monotonic()
            with pytest.raises(BackendError):
                asked.embed(USERS, 7, asks("wine"), seconds=seconds)
            assert time.monotonic() - started < seconds + SLACK


def test_a_hung_worker_is_overtaken_then_left_alone(pair: list[StubProcess]):
    with silent_server() as hung, closing(backend(hung, pair[0].address, hedge_ms=100)) as asked:
        seconds = []
        for _ in range(5):
            started = time.monotonic()
            check(asked.embed(USERS, 7, asks("wine"), seconds=20), USERS, "wine")
            seconds.append(time.monotonic() - started)
        assert not asked.pool.admits(hung)
    assert seconds[0] >= 0.1
    assert max(seconds) < 5


def test_a_slow_worker_is_not_waited_for_past_the_deadline():
    slow = start_stub(seconds=3.0)
    try:
        with closing(backend(slow.address)) as asked:
            started = time.monotonic()
            with pytest.raises(DeadlineError):
                asked.embed(USERS[:1], 7, asks("wine"), seconds=0.5)
            assert time.monotonic() - started < 0.5 + SLACK
    finally:
        slow.kill()


def test_a_worker_that_dies_mid_request_is_replaced_by_another(pair: list[StubProcess]):
    dying = start_stub(mode="die")
    try:
        with closing(backend(dying.address, pair[0].address)) as asked:
            check(asked.embed(USERS, 7, asks("wine"), seconds=20), USERS, "wine")
        assert dying.process.wait(timeout=10) == 9
    finally:
        dying.kill()


def test_a_worker_that_comes_back_is_asked_again_by_the_same_caller():
    first = start_stub()
    with closing(backend(first.address, breaker_failures=1, breaker_seconds=0.2)) as asked:
        check(asked.embed(USERS[:2], 7, asks("wine"), seconds=20), USERS[:2], "wine")
        first.kill()
        with pytest.raises(BackendError):
            asked.embed(USERS[:2], 7, asks("wine"), seconds=2)
        second = start_stub(port=first.port)
        try:
            assert _recovers(asked, within=10)
        finally:
            second.kill()


def _recovers(asked: FlightBackend, *, within: float) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            check(asked.embed(USERS[:2], 7, asks("wine"), seconds=2), USERS[:2], "wine")
            return True
        except BackendError:
            time.sleep(0.1)
    return False


def test_ten_times_overload_gives_right_answers_or_errors_in_time():
    """One worker of four slots of 50 ms each takes 80 requests/s; forty callers ask without a pause."""
    worker = start_stub(seconds=0.05, slots=4)
    outcomes: list[tuple[float, str]] = []

    def ask_often(asked: FlightBackend, until: float) -> None:
        while time.monotonic() < until:
            started = time.monotonic()
            try:
                check(asked.embed(USERS[:1], 7, asks("wine"), seconds=0.5), USERS[:1], "wine")
                outcome = "answered"
            except QAnchorError as error:
                outcome = type(error).__name__
            outcomes.append((time.monotonic() - started, outcome))

    try:
        with closing(backend(worker.address)) as asked:
            threads = [
                threading.Thread(target=ask_often, args=(asked, time.monotonic() + 2)) for _ in range(40)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert _recovers(asked, within=20)
    finally:
        worker.kill()
    answered = [seconds for seconds, outcome in outcomes if outcome == "answered"]
    assert answered
    assert max(seconds for seconds, _ in outcomes) < 0.5 + SLACK


def test_a_query_of_another_engine_than_said_is_refused(pair: list[StubProcess]):
    from dataclasses import replace

    asked = [replace(asks("wine")[0], engine_digest="0" * 32)]
    with closing(backend(pair[0].address)) as pool, pytest.raises(BrokenAnswerError, match=ENGINE_DIGEST):
        pool.embed(USERS[:1], 7, asked, seconds=10)
