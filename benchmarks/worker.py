"""A worker against the engine called directly: throughput of a batch, and latency under half its load.

The worker is a process of its own on this machine, so its callers' own work counts against it. Bars: 90% of
the engine's throughput, and a 99th percentile under half load of at most 3 times a single request.

Latency is measured twice. Before calibration a worker keeps soft tokens only and every request is a prefill:
work of one length, which no company makes cheaper. After ``qanchor calibrate`` it keeps keys where they pay,
here in memory, and a request is a suffix. Each time requests come evenly spaced, as from a job that paces
itself, and at random, as from many callers who know nothing of each other (one server: an M/D/1 queue).
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.driver_memory import peak_mb
from benchmarks.qwen_shape import write_engine
from benchmarks.results import Row, keep, machine
from benchmarks.shop import QUESTIONS
from benchmarks.worker_lake import END, END_MICROS, profile_of, user_of, write_lake
from benchmarks.worker_process import Caller, Worker, running
from qanchor_plugin.backend import Ask, LocalBackend, wire
from qanchor_plugin.backend.calibrate import calibrate
from qanchor_plugin.backend.engines import shared_engine
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.backbone import CausalLMBackbone
from qanchor_plugin.engine.decoder import held_dtype
from qanchor_plugin.prefix_store import calibration_path

COMMAND = "python -m benchmarks.worker"
CALLERS, SATURATING = 4, 8
ARRIVALS = ("evenly spaced", "at random")
MOST_TIMES_SINGLE = 3.0


def main() -> None:
    """The figures stand in results/performance.json (``--quick`` prints them and keeps nothing)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the demo engine, few users, nothing is kept")
    parser.add_argument("--users", type=int, default=0, help="users of a batch (8, quick 64)")
    parser.add_argument("--rounds", type=int, default=2, help="times that both are measured in turn")
    given = parser.parse_args()
    users = given.users or (64 if given.quick else 8)
    with tempfile.TemporaryDirectory() as scratch:
        engine = "demo" if given.quick else str(write_engine(Path(scratch) / "engine"))
        rows = measure(Path(scratch) / "lake", engine, num_users=users, rounds=given.rounds)
    for row in rows:
        print(
            f"{row.row}: {row.value:.4g} {row.unit} ({row.baseline_name} {row.baseline:.4g}, {row.ratio:.2f})"
        )
    if not given.quick:
        keep("performance", rows)


def measure(lake: Path, engine: str, *, num_users: int, rounds: int) -> list[Row]:
    """The rows of table ``worker``."""
    settings = Settings(lake=str(lake), clock=END, engine=engine, device="cpu")
    local = LocalBackend(settings)
    profile = profile_of(250 if engine != "demo" else 64)
    asks = [Ask(profile=profile, query=query, engine=engine) for query in QUESTIONS]
    local.prepare(asks)
    write_lake(lake, shared_engine(engine, "cpu"), profile, num_users=num_users, num_events=250)
    users = [user_of(number) for number in range(num_users)]
    seconds = 5.0 if engine == "demo" else 60.0
    with running(lake, engine, asks) as worker:
        measured = [
            _prefixes(local, profile, asks, users, worker.address, rounds),
            _named(local, asks, users, worker.address, rounds),
            *_latency("a prefill each", asks[:1], users, worker.address, seconds),
        ]
    tokens = len(next(iter(local.memory._entries.values())).positions)
    costs = calibrate(shared_engine(engine, "cpu"), lake=lake, disk=None, lengths=(tokens // 2, tokens))
    place = calibration_path(str(lake), None)
    assert place is not None
    costs.write(place)
    with running(lake, engine, asks) as worker:
        measured += _latency("keys kept as calibrated", asks[:1], users, worker.address, seconds)
        return [*measured, _memory(worker, engine, settings)]


def _prefixes(
    local: LocalBackend, profile: Profile, asks: list[Ask], users: list[bytes], address: str, rounds: int
) -> Row:
    """Soft tokens sent, as a Spark job without a GPU does; the engine has them already."""
    local.embed(users, END_MICROS, asks[:1])
    entries = [entry.with_kv(None) for entry in local.memory._entries.values()]
    chunks = [entries[start : start + 8] for start in range(0, len(entries), 8)]

    def direct() -> None:
        for chunk in chunks:
            local.embed_prefixes(chunk, [END_MICROS] * len(chunk), asks)

    def send(caller: Caller, chunk: Any) -> None:
        cutoffs = [END_MICROS] * len(chunk)
        caller.embed(asks, wire.prefix_batch(chunk, cutoffs), cutoffs, kind="prefixes", priority="batch")

    found = _in_turn(direct, lambda: _all_sent(address, chunks, send), len(users) * len(asks), rounds)
    return _throughput("embeddings of soft tokens sent to a worker", found, "the engine in process")


def _named(local: LocalBackend, asks: list[Ask], users: list[bytes], address: str, rounds: int) -> Row:
    """Users named, prefixes in both sides' memory: lake read, slice, suffixes."""
    chunks = [users[start : start + 8] for start in range(0, len(users), 8)]

    def direct() -> None:
        for chunk in chunks:
            local.embed(chunk, END_MICROS, asks)

    def send(caller: Caller, chunk: Any) -> None:
        caller.embed(
            asks,
            wire.users_batch(chunk),
            [END_MICROS] * len(chunk),
            kind="users",
            priority="batch",
            cutoff=END_MICROS,
        )

    direct()
    _all_sent(address, chunks, send)
    found = _in_turn(direct, lambda: _all_sent(address, chunks, send), len(users) * len(asks), rounds)
    return _throughput("embeddings of users named to a worker", found, "the backend in process")


def _latency(how: str, asks: list[Ask], users: list[bytes], address: str, seconds: float) -> list[Row]:
    """One user, one query, at half of what the worker can do: a row for each kind of arrivals."""
    caller = Caller(address)
    batches = [wire.users_batch([user]) for user in users]

    def one(number: int, through: Caller | None = None) -> None:
        batch = batches[number % len(batches)]
        (through or caller).embed(asks, batch, [END_MICROS], kind="users", cutoff=END_MICROS)

    for number in range(len(users)):
        one(number)
    single = float(np.median([_timed(partial(one, number)) for number in range(20)]))
    capacity = _saturated(address, one, min(seconds, 10.0))
    print(f"{how}: single {single * 1000:.1f} ms; capacity {capacity:.1f}/s")
    loads = {kind: _open_loop(address, one, kind, rate=capacity / 2, seconds=seconds) for kind in ARRIVALS}
    return [_percentile(f"{how}, requests {kind}", took, single) for kind, took in loads.items()]


def _percentile(how: str, latencies: list[float], single: float) -> Row:
    p99, allowed = float(np.percentile(latencies, 99)), MOST_TIMES_SINGLE * single
    print(f"{how}: median {np.median(latencies) * 1000:.1f} ms")
    return Row(
        table="worker",
        row=f"99th percentile of one user and query under half load, {how}",
        value=1000 * p99,
        unit="ms",
        baseline=1000 * allowed,
        baseline_name="3 times a single request",
        ratio=allowed / p99,
        n=len(latencies),
        command=COMMAND,
        machine=machine(),
    )


def _memory(worker: Worker, engine: str, settings: Settings) -> Row:
    """What the process held at most, against the engine's weights and the memory tier's bound.

    A language model in bfloat16 has its layers in float32 where the processor multiplies so.
    """
    modules = QueryAnchorEngine.load(engine, device="cpu").modules
    weights = sum(one.nbytes for one in [*modules.parameters(), *modules.buffers()])
    if isinstance(modules.backbone, CausalLMBackbone):
        kept = modules.compute_dtype
        wider = held_dtype(kept, torch.device("cpu")).itemsize - kept.itemsize
        weights += wider * sum(one.numel() for one in modules.backbone.model.base_model.layers.parameters())
    planned = (weights + settings.prefix_memory_bytes) / 2**20
    peak = peak_mb(worker.pid)
    return Row(
        table="worker",
        row="peak resident memory of a worker",
        value=peak,
        unit="MB",
        baseline=planned,
        baseline_name="weights and memory tier",
        ratio=planned / peak,
        command=COMMAND,
        machine=machine(),
    )


def _in_turn(
    direct: Callable[[], None], through: Callable[[], None], num: int, rounds: int
) -> list[tuple[float, float]]:
    """(engine, worker) in embeddings a second, measured one after the other, round by round."""
    return [(num / _timed(direct), num / _timed(through)) for _ in range(rounds)]


def _throughput(row: str, found: list[tuple[float, float]], baseline: str) -> Row:
    ratios = [worker / direct for direct, worker in found]
    return Row(
        table="worker",
        row=row,
        value=float(np.median([worker for _, worker in found])),
        unit="/s",
        baseline=float(np.median([direct for direct, _ in found])),
        baseline_name=baseline,
        ratio=float(np.median(ratios)),
        n=len(found),
        spread=float(np.std(ratios)),
        command=COMMAND,
        machine=machine(),
    )


def _all_sent(address: str, chunks: Sequence[Any], send: Callable[[Caller, Any], None]) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [Caller(address) for _ in range(CALLERS)]
        futures = [pool.submit(send, callers[n % CALLERS], chunk) for n, chunk in enumerate(chunks)]
        for future in futures:
            future.result()


def _saturated(address: str, one: Callable[..., None], seconds: float) -> float:
    """Requests a second when eight callers never pause, each with users of its own: a worker answers callers
    who ask the same at once together."""
    started, done = time.perf_counter(), []

    def run(first: int) -> None:
        caller, number = Caller(address), first
        while time.perf_counter() < started + seconds:
            one(number, caller)
            done.append(number)
            number += SATURATING

    with ThreadPoolExecutor(SATURATING) as pool:
        for _ in pool.map(run, range(SATURATING)):
            pass
    return len(done) / (time.perf_counter() - started)


def _open_loop(
    address: str, one: Callable[..., None], arrivals: str, *, rate: float, seconds: float
) -> list[float]:
    """Seconds from each request's scheduled arrival to its answer; arrivals do not wait for answers."""
    num = max(20, int(rate * seconds))
    at_random = np.random.default_rng(11).exponential(1 / rate, num)
    instants = np.cumsum(at_random if arrivals == "at random" else np.full(num, 1 / rate))
    callers = [Caller(address) for _ in range(16)]
    started = time.perf_counter() + 0.05

    def ask(number: int) -> float:
        one(number, callers[number % len(callers)])
        return time.perf_counter() - started - instants[number]

    with ThreadPoolExecutor(len(callers)) as pool:
        futures = []
        for number, instant in enumerate(instants):
            time.sleep(max(0.0, started + instant - time.perf_counter()))
            futures.append(pool.submit(ask, number))
        return [future.result() for future in futures]


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
