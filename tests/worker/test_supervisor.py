"""Several processes on one host: one killed is started again, and none outlives its supervisor."""

import os
import signal
import time

import pytest

from qanchor_plugin.errors import BackendError
from tests.worker.asking import ask, in_background, until
from tests.worker.processes import get

pytestmark = pytest.mark.slow


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def started(worker, number: int) -> list[dict]:
    """The ``listening`` events of all processes, once all are ready."""
    for _ in range(number):
        worker.event("ready")
    return [one for one in worker.events if one["event"] == "listening"]


def test_a_killed_process_is_started_again_at_its_port_while_the_other_answers(command, call):
    worker = command("--processes", "2")
    first, second = sorted(started(worker, 2), key=lambda one: one["process"])
    assert first["address"] != second["address"]
    for one in (first, second):
        assert call(one["address"]).embed([1])[0][0][0] is not None
    many = [ask(f"Question number {number}?") for number in range(50)]
    cut_off, answer = in_background(lambda: call(first["address"]).embed([1, 2, 3], many))
    until(lambda: "qanchor_worker_in_flight 1.0" in get(first["health"] + "/metrics")[1])
    os.kill(first["pid"], signal.SIGKILL)
    cut_off.join()
    assert isinstance(answer[0], BackendError)  # nothing of it is used
    assert worker.event("died")["process"] == first["process"]
    assert call(second["address"]).embed([1])[0][0][0] is not None
    with pytest.raises(BackendError):
        call(first["address"]).embed([1])
    again = worker.event("listening")
    assert (again["address"], again["health"]) == (first["address"], first["health"])
    worker.event("ready")
    assert call(first["address"]).embed([1])[0][0][0] is not None
    worker.popen.send_signal(signal.SIGHUP)
    assert {worker.event("reloaded")["process"] for _ in range(2)} == {0, 1}
    assert worker.terminate() == 0
    assert not alive(again["pid"])
    assert not alive(second["pid"])


def test_processes_end_when_their_supervisor_is_killed(command):
    worker = command("--processes", "2")
    pids = [one["pid"] for one in started(worker, 2)]
    worker.popen.kill()
    worker.popen.wait()
    until(lambda: not any(alive(pid) for pid in pids), 60)


def test_a_setting_that_cannot_work_is_not_retried_for_ever(command):
    worker = command("--processes", "2", "--engine", "nowhere/engine")
    start = time.monotonic()
    assert worker.popen.wait(timeout=500) == 1
    assert time.monotonic() - start < 500
    assert "never became ready" in worker.log()
