"""Ready, drained, reloaded, told to forget, and counted."""

import base64
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from qanchor_plugin.errors import (
    BackendError,
    DrainingError,
    InputDataError,
    OverloadedError,
)
from qanchor_plugin.worker.health import HealthServer
from tests.shop import user
from tests.worker.asking import ask, header, hold, in_background, until
from tests.worker.processes import get


def test_a_cold_worker_refuses_and_says_why(start, call):
    worker = start(ready=False)
    with pytest.raises(OverloadedError, match="engine is being loaded"):
        call(worker).embed([1])
    assert worker.state.not_ready() == "the engine is being loaded"


def test_draining_finishes_what_was_accepted_and_takes_no_more(start, call):
    worker = start()
    began = hold(worker, 0.5)
    first, found = in_background(lambda: call(worker).embed([1]))
    began.wait(10)
    assert worker.state.batcher.running_seconds() > 0
    worker.state.drain()
    with pytest.raises(DrainingError):
        call(worker).embed([2])
    first.join()
    assert found[0][0][0][0] is not None
    until(worker.state.quiet)
    assert worker.state.batcher.running_seconds() == 0


def test_live_says_when_one_batch_hangs():
    reasons = {"/live": None, "/ready": "loading"}
    health = HealthServer(
        "127.0.0.1",
        0,
        live=lambda: reasons["/live"],
        ready=lambda: reasons["/ready"],
        metrics=lambda: b"m 1",
    )
    try:
        base = f"http://127.0.0.1:{health.port}"
        assert get(f"{base}/live") == (200, '{"live": true}\n')
        assert get(f"{base}/ready") == (503, '{"ready": false, "reason": "loading"}\n')
        reasons |= {"/live": "one batch has been computed for 301 s", "/ready": None}
        assert get(f"{base}/live")[0] == 503
        assert get(f"{base}/ready?x=1") == (200, '{"ready": true}\n')
        assert get(f"{base}/metrics") == (200, "m 1")
    finally:
        health.close()


def test_actions(start, call, serving):
    worker = start()
    caller = call(worker)
    caller.embed([1, 2])
    status = caller.act("status")
    assert status["ready"]
    assert status["engines"] == serving.engines
    held = status["memory"]["entries"]
    body = json.dumps({"users": [base64.b64encode(user(1)).decode()]}).encode()
    assert caller.act("forget", body) == {"dropped": 1}
    assert caller.act("status")["memory"]["entries"] == held - 1
    for name, body in (("forget", b"{}"), ("forget", b"\xff"), ("surprise", b"")):
        with pytest.raises(InputDataError):
            caller.act(name, body)


def test_a_reload_keeps_memory_and_reads_the_latest_queries_ahead(start, call):
    worker = start()
    caller = call(worker)
    caller.embed([1], [ask("Is this the latest question?")])
    held = caller.act("status")["memory"]["entries"]
    caller.act("reload")
    assert caller.act("status")["memory"]["entries"] == held
    assert ("Is this the latest question?", None) in worker.state.current().backend.latest_queries("demo", 64)


def test_reload_under_load_drops_nothing(start, call, local):
    worker = start()
    (expected,) = local.embed([user(1)], header().cutoff, [ask()])[0]
    stop, found = threading.Event(), []

    def run():
        caller = call(worker)
        while not stop.is_set():
            found.append(caller.embed([1])[0][0][0])

    threads = [in_background(run) for _ in range(3)]
    before = id(worker.state.current())
    for _ in range(3):
        assert call(worker).act("reload") == {"engines": worker.state.current().engines}
        time.sleep(0.1)
    stop.set()
    for thread, failed in threads:
        thread.join()
        assert failed == [None]
    assert id(worker.state.current()) != before
    assert len(found) > 3
    for one in found:
        np.testing.assert_allclose(one.embedding, expected.embedding, atol=1e-6)


def test_labels_of_metrics_are_bounded(start, call):
    worker = start()
    caller = call(worker)
    for number in range(20):
        caller.embed(
            [1], [ask(f"Question {number}?")], request_id=f"r{number}", cutoff=header().cutoff + number
        )
        with pytest.raises(BackendError):
            caller.embed([1], [replace(ask(), engine=f"engine-{number}")])
    series = {
        (one.name, tuple(sorted(one.labels.items())))
        for family in worker.state.metrics.registry.collect()
        for one in family.samples
    }
    assert len(series) < 400
    assert not any("question" in str(one).lower() or "engine-1" in str(one) for one in series)
