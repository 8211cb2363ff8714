"""``qanchor worker`` as an operator runs it: start, probes, reload, drain, and what stops it."""

import json
import signal
import time

import numpy as np
import pyarrow.flight as flight
import pytest

from qanchor_plugin.backend import wire
from qanchor_plugin.errors import BackendError, QAnchorError, UnauthenticatedError
from tests.shop import user
from tests.worker.asking import NOW, ask, header, in_background, until
from tests.worker.processes import get


def test_the_life_of_a_worker(command, call, local, repo):
    (repo / "token").write_text("the-token\n")
    worker = command("--token-file", str(repo / "token"))
    listening = worker.event("listening")
    health = listening["health"]
    assert get(f"{health}/live")[0] == 200
    status, body = get(f"{health}/ready")  # torch is not even imported yet
    assert (status, json.loads(body)["ready"]) == (503, False)
    ready = worker.event("ready")
    assert get(f"{health}/ready") == (200, '{"ready": true}\n')

    with pytest.raises(UnauthenticatedError):
        call(listening["address"]).embed([1])
    caller = call(listening["address"], token="the-token")
    asks = [ask(), ask("Is wine bought?")]
    found, end = caller.embed([1, 2, 4], asks, request_id="seen-in-the-log")
    expected = local.embed([user(1), user(2), user(4)], NOW, asks)
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)
                assert one.embedding_id == other.embedding_id
    assert end.engines == ready["engines"]
    metrics = get(f"{health}/metrics")[1]
    assert 'qanchor_worker_requests_total{code="ok",kind="users",priority="online"} 1.0' in metrics
    assert "process_resident_memory_bytes" in metrics
    assert get(f"{health}/elsewhere")[0] == 404

    worker.popen.send_signal(signal.SIGHUP)
    assert worker.event("reloaded")["engines"] == ready["engines"]
    assert caller.embed([1])[0][0][0].embedding_id == expected[0][0].embedding_id
    counts = caller.act("status")["counts"]
    assert (counts["prefix_memory"], counts["prefix_built"]) == (1, 0)  # memory outlives the reload

    many = [ask(f"Question number {number}?") for number in range(20)]
    other = call(listening["address"], token="the-token")
    descriptor = flight.FlightDescriptor.for_command(header().to_bytes())
    endless, _ = other.client.do_exchange(descriptor, other.options)
    endless.begin(wire.USERS)  # its rows never come: the drain does not wait for them
    until(lambda: "qanchor_worker_in_flight 1.0" in get(f"{health}/metrics")[1])
    thread, accepted = in_background(lambda: caller.embed([1, 2, 3], many, priority="batch"))
    until(lambda: "qanchor_worker_in_flight 2.0" in get(f"{health}/metrics")[1])
    started = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - started < 35
    thread.join()
    assert not isinstance(accepted[0], QAnchorError), accepted[0]
    assert len(accepted[0][0]) == 3
    assert worker.event("ended")["clean"] is True
    with pytest.raises(flight.FlightError):
        endless.close()
    with pytest.raises(BackendError):
        call(listening["address"], token="the-token").embed([1])
    lines = [json.loads(line) for line in worker.log().splitlines()]
    (answered,) = [line for line in lines if line.get("request_id") == "seen-in-the-log"]
    assert (answered["rows"], answered["asks"], answered["message"]) == (3, 2, "answered")


@pytest.mark.slow
def test_an_engine_that_cannot_be_had_ends_it_with_the_reason(command):
    worker = command("--engine", "nowhere/engine")
    assert "nowhere/engine" in worker.event("failed")["error"]
    assert worker.popen.wait(timeout=60) == 1


@pytest.mark.slow
def test_a_lake_that_is_not_there_yet_is_waited_for(command, call, repo, lake):
    settings = (repo / "feature_store.yaml").read_text().replace(str(lake.folder), str(repo / "later"))
    (repo / "feature_store.yaml").write_text(settings)
    worker = command()
    listening = worker.event("listening")
    limit = time.monotonic() + 300
    while "has no table" not in get(listening["health"] + "/ready")[1]:
        assert time.monotonic() < limit
        time.sleep(0.2)
    (repo / "later").symlink_to(lake.folder)
    worker.event("ready")
    assert call(listening["address"]).embed([1])[0][0][0] is not None


def test_what_cannot_be_is_said_before_anything_is_loaded(qanchor, repo):
    for arguments, said in (
        (["--listen", "8815"], "--listen is '8815'; write it as HOST:PORT"),
        (["--token-file", "/no/such"], "there is no file /no/such"),
        (["--tls-cert", str(repo / "feature_store.yaml")], "--tls-cert and --tls-key go together"),
    ):
        told = qanchor("worker", "--repo", str(repo), *arguments)
        assert (told.code, said in told.err) == (1, True), told.err
