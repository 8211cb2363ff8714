"""``qanchor worker`` as an operator runs it: start, probes, reload, drain, and what stops it."""

import json
import signal
import threading
import time

import numpy as np
import pyarrow.flight as flight
import pytest

from qanchor_plugin.backend import wire
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import PRESETS
from qanchor_plugin.errors import BackendError, QAnchorError, UnauthenticatedError, WrongEngineError
from tests.shop import demo_engine, user
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
    batch_answered = 'qanchor_worker_requests_total{code="ok",kind="users",priority="batch"} 1.0'
    accepted_or_answered = ("qanchor_worker_queued_requests 1.0", batch_answered)
    until(lambda: any(said in get(f"{health}/metrics")[1] for said in accepted_or_answered))
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


@pytest.mark.slow
def test_a_new_engine_takes_over_under_load_and_a_broken_one_does_not(command, call, repo):
    folder = repo / "engine"
    demo_engine().save_pretrained(folder)
    worker = command("--engine", str(folder))
    listening = worker.event("listening")
    first = worker.event("ready")["engines"][str(folder)]
    stop, answered = threading.Event(), []

    def ask_on() -> None:
        caller = call(listening["address"])
        while not stop.is_set():
            found, end = caller.embed([1], [ask(engine=str(folder))])
            answered.append((end.engines[str(folder)], found[0][0].embedding))

    thread, failed = in_background(ask_on)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text("{")
    worker.popen.send_signal(signal.SIGHUP)
    assert "config.json" in worker.event("reload_failed")["error"]
    (folder / "config.json").write_text(config)
    QueryAnchorEngine.untrained(PRESETS["demo"].with_(seed=11), device="cpu").save_pretrained(folder)
    worker.popen.send_signal(signal.SIGHUP)
    second = worker.event("reloaded")["engines"][str(folder)]
    assert second != first
    so_far = len(answered)
    until(lambda: len(answered) > so_far + 2, 60)
    stop.set()
    thread.join()
    assert failed == [None]  # no request was dropped
    digests = [digest for digest, _ in answered]
    assert digests == sorted(digests, key=[first, second].index)  # one after the other, each as it says
    by_digest = dict(answered)
    assert set(by_digest) == {first, second}
    assert np.abs(by_digest[first] - by_digest[second]).max() > 1e-3
    for digest, embedding in answered:
        np.testing.assert_allclose(embedding, by_digest[digest], atol=1e-6)
    with pytest.raises(WrongEngineError):
        call(listening["address"]).embed([1], [ask(engine=str(folder), engine_digest=first)])


@pytest.mark.gpu
def test_each_cuda_device_gets_a_process_and_answers_as_the_cpu_does(command, call, local):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    number = torch.cuda.device_count()
    worker = command("--device", "cuda", "--processes", str(number))
    for _ in range(number):
        worker.event("ready")
    (expected,) = local.embed([user(1)], NOW, [ask()])[0]
    for one in [one for one in worker.events if one["event"] == "listening"]:
        found, _ = call(one["address"]).embed([1])
        assert float(found[0][0].embedding @ expected.embedding) > 0.999
