"""Time and room: nobody waits past a deadline, a full queue says when to come back, online goes first."""

import threading
import time

import numpy as np
import pyarrow.flight as flight
import pytest

from qanchor_plugin.errors import (
    BackendError,
    DeadlineError,
    OverloadedError,
)
from tests.shop import user
from tests.worker.asking import ask, header, hold, in_background, until


def test_no_request_waits_past_its_deadline_and_an_expired_one_is_not_computed(start, call):
    worker = start()
    began = hold(worker, 1.0)
    first, _ = in_background(lambda: call(worker).embed([1]))
    began.wait(10)
    started = time.monotonic()
    with pytest.raises(DeadlineError):
        call(worker).embed([2], deadline_ms=200)
    assert 0.15 < time.monotonic() - started < 0.9
    first.join()
    assert call(worker).embed([3])[0][0][0] is not None
    assert (
        worker.value("dropped_total", reason="expired") + worker.value("dropped_total", reason="cancelled")
        == 1
    )
    assert worker.value("batch_requests_sum") == 2
    assert worker.value("requests_total", kind="users", priority="online", code="deadline_exceeded") == 1


def test_a_caller_that_goes_away_is_dropped_from_the_queue(start, call):
    worker = start()
    began = hold(worker, 0.8)
    first, _ = in_background(lambda: call(worker).embed([1]))
    began.wait(10)
    gone = call(worker)
    gone.options = flight.FlightCallOptions(timeout=0.1)
    with pytest.raises(DeadlineError):
        gone.embed([2])
    first.join()
    until(lambda: worker.value("dropped_total", reason="cancelled") == 1)
    assert worker.value("dropped_total", reason="cancelled") == 1
    assert worker.value("batch_requests_sum") == 1


def test_a_full_queue_refuses_with_a_time_to_come_back(start, call):
    worker = start(limits={"queue_requests": 2})
    began = hold(worker, 0.6)
    waiting = [in_background(lambda: call(worker).embed([1]))]
    began.wait(10)
    waiting += [in_background(lambda: call(worker).embed([2]))]
    until(lambda: worker.state.batcher.num_waiting() == 2)
    with pytest.raises(OverloadedError, match="the queue is full") as refused:
        call(worker).embed([3])
    assert 20 <= refused.value.retry_after_ms <= 30_000
    for thread, found in waiting:
        thread.join()
        assert found[0][0][0][0] is not None
    assert call(worker).embed([3])[0][0][0] is not None


def test_online_goes_before_batch(start, call):
    worker = start(max_wait_ms=0.0)
    order: list[str] = []
    compute = worker.state.batcher._compute
    began = threading.Event()

    def slow(batch):
        order.append(batch.pieces[0].request.header.request_id)
        began.set()
        time.sleep(0.5)
        compute(batch)

    worker.state.batcher._compute = slow
    threads = [in_background(lambda: call(worker).embed([1], request_id="first"))]
    began.wait(10)
    for name in ("batch", "online"):
        threads.append(
            in_background(lambda name=name: call(worker).embed([2], priority=name, request_id=name))
        )
        deadline = time.monotonic() + 5
        while (
            worker.state.metrics.queued_requests._value.get() < len(threads) and time.monotonic() < deadline
        ):
            time.sleep(0.01)
    for thread, _ in threads:
        thread.join()
    assert order == ["first", "online", "batch"]


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.slow, id="a minute")])
def test_ten_times_too_many_are_refused_fast_and_the_rest_answered_right(start, call, local, seconds):
    worker = start(limits={"queue_requests": 8})
    hold(worker, 0.05)
    (expected,) = local.embed([user(1)], header().cutoff, [ask()])[0]
    slowest, until_then = 0.0, time.monotonic() + seconds
    outcomes: list = []

    def run():
        nonlocal slowest
        caller = call(worker)
        while time.monotonic() < until_then:
            started = time.monotonic()
            try:
                outcomes.append(caller.embed([1], deadline_ms=2_000)[0][0][0])
            except (OverloadedError, DeadlineError) as error:
                outcomes.append(error)
            slowest = max(slowest, time.monotonic() - started)

    threads = [threading.Thread(target=run) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answered = [one for one in outcomes if not isinstance(one, BackendError)]
    assert 0 < len(answered) < len(outcomes)
    for one in answered:
        np.testing.assert_allclose(one.embedding, expected.embedding, atol=1e-6)
    assert slowest < 10.0  # the deadline was 2 s; the rest is this machine's
    assert call(worker).embed([1])[0][0][0] is not None


def test_memory_that_runs_out_halves_the_batch(start, call, local, serving):
    worker = start()
    embed, sizes = serving.backend.embed, []

    def small(users, cutoffs, asked):
        sizes.append(len(users))
        if len(users) > 1:
            raise MemoryError
        return embed(users, cutoffs, asked)

    serving.backend.embed = small
    try:
        found, _ = call(worker).embed([1, 2, 3])
        assert [row[0].num_events for row in found] == [3, 1, 0]
        assert sizes == [3, 1, 2, 1, 1]
        serving.backend.embed = lambda *_: (_ for _ in ()).throw(MemoryError())
        with pytest.raises(OverloadedError, match="not enough memory"):
            call(worker).embed([1])
    finally:
        serving.backend.embed = embed
    assert call(worker).embed([1])[0][0][0] is not None
