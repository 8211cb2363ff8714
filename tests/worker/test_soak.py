"""Memory stays flat while a worker answers, refuses and is left by its callers."""

import random
import threading
import time

import psutil
import pytest

from qanchor_plugin.errors import QAnchorError
from tests.worker.asking import NOW, Caller, ask

pytestmark = pytest.mark.slow
ALLOWED_GROWTH = 48 * 1024 * 1024
"""Allocator noise of torch and gRPC threads; a leak of 1 kB a request would be twice this in ten minutes."""


@pytest.mark.parametrize("seconds", [20, pytest.param(600, id="ten minutes")])
def test_memory_is_flat(command, seconds):
    worker = command("--prefix-mb", "8")
    listening = worker.event("listening")
    worker.event("ready")
    process = psutil.Process(listening["pid"])
    stop, failed = threading.Event(), []
    threads = [
        threading.Thread(target=_ask_on, args=(listening["address"], number, stop, failed))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    time.sleep(max(10, seconds / 4))  # caches fill, allocators settle
    before = process.memory_info().rss
    time.sleep(seconds)
    after = process.memory_info().rss
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed, failed[:3]
    assert after - before < ALLOWED_GROWTH, f"{before:,} to {after:,} bytes"


def _ask_on(address: str, seed: int, stop: threading.Event, failed: list) -> None:
    """Ordinary requests, with some that are refused and some that nobody waits for."""
    chance = random.Random(seed)
    caller = Caller(address)
    while not stop.is_set():
        asked = [ask(f"Question {chance.randrange(3000)}?")]
        kind = chance.random()
        try:
            if kind < 0.1:
                caller.embed([1], [ask(engine="none")])
            elif kind < 0.2:
                caller.embed([1, 2, 3], asked, deadline_ms=1)
            else:
                found, _ = caller.embed([1, 2, 3], asked, cutoff=NOW - chance.randrange(10**11))
                if any(row[0] is None for row in found):
                    failed.append("a known user was not answered")
        except QAnchorError as error:
            if kind >= 0.2:
                failed.append(repr(error))
    caller.close()
