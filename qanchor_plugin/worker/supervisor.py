"""N worker processes on one host: each on a port of its own, one that dies is started again."""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qanchor_plugin.worker.config import WorkerConfig
from qanchor_plugin.worker.process import Announce

logger = logging.getLogger("qanchor.worker.supervisor")

BACKOFF_SECONDS = (0.2, 30.0)
"""First and longest wait before a process that died is started again."""

STEADY_SECONDS = 60.0
"""One that lived this long starts again at the shortest wait."""

MAX_FAILED_STARTS = 3
"""A process that was never ready is tried this often: a wrong setting must be seen, not retried for ever."""


@dataclass(kw_only=True, eq=False)
class Child:
    """One process and what it said of itself."""

    number: int
    config: WorkerConfig
    process: "subprocess.Popen[str] | None" = None
    started: float = 0.0
    restart_at: float = 0.0
    backoff: float = BACKOFF_SECONDS[0]
    ever_ready: bool = False
    failed_starts: int = 0


class Supervisor:
    """Starts the processes, restarts what dies, and passes signals on.

    Args:
        config: of the first process; the next ones listen at the following ports.
        num_processes: how many.
        devices: CUDA devices to give them, one each; empty on a CPU.
        announce: given every process's events with its number.
    """

    def __init__(
        self, config: WorkerConfig, num_processes: int, *, devices: Sequence[str] = (), announce: Announce
    ) -> None:
        self._announce, self._devices = announce, list(devices)
        self._grace = config.grace_seconds
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._children = [
            Child(number=n, config=config.at(_after(config.port, n), _after(config.http_port, n)))
            for n in range(num_processes)
        ]

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT; 0, or 1 when a process could not start or did not end cleanly."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda given, _frame: self._signals.put(given))
        for child in self._children:
            self._start(child)
        while True:
            try:
                given = self._signals.get(timeout=0.2)
            except queue.Empty:
                if self._mend():
                    continue
                self._stop()
                return 1
            if given == signal.SIGHUP:
                self._pass_on(signal.SIGHUP)
            else:
                return self._stop()

    def _start(self, child: Child) -> None:
        environment = dict(os.environ)
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[child.number % len(self._devices)]
        child.process = subprocess.Popen(
            [sys.executable, "-m", "qanchor_plugin.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # a Ctrl-C at the terminal reaches it through us, once
        )
        child.started = time.monotonic()
        assert child.process.stdin is not None
        child.process.stdin.write(child.config.to_json() + "\n")
        child.process.stdin.flush()
        threading.Thread(target=self._listen, args=(child, child.process), daemon=True).start()

    def _listen(self, child: Child, process: "subprocess.Popen[str]") -> None:
        """The process's events are passed on; the ports it found are kept for its next start."""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._heard(child, json.loads(line))

    def _heard(self, child: Child, event: dict[str, Any]) -> None:
        if event["event"] == "listening":
            port = int(event["address"].rsplit(":", 1)[1])
            child.config = child.config.at(port, int(event["health"].rsplit(":", 1)[1]))
        child.ever_ready = child.ever_ready or event["event"] == "ready"
        self._announce({**event, "process": child.number})

    def _mend(self) -> bool:
        """Dead processes are started again when their wait is over; False when one cannot start at all."""
        instant = time.monotonic()
        for child in self._children:
            if child.process is None:
                if instant >= child.restart_at:
                    self._start(child)
                continue
            code = child.process.poll()
            if code is None:
                continue
            child.failed_starts += not child.ever_ready
            if child.failed_starts >= MAX_FAILED_STARTS:
                logger.error("process %d never became ready; giving up", child.number)
                return False
            self._bury(child, code, instant)
        return True

    def _bury(self, child: Child, code: int, instant: float) -> None:
        if instant - child.started > STEADY_SECONDS:
            child.backoff = BACKOFF_SECONDS[0]
        child.restart_at = instant + child.backoff
        logger.error(
            "process %d ended with %d; starting it again in %.1f s", child.number, code, child.backoff
        )
        self._announce(
            {"event": "died", "process": child.number, "code": code, "restart_seconds": child.backoff}
        )
        child.backoff = min(2 * child.backoff, BACKOFF_SECONDS[1])
        if child.process is not None and child.process.stdin is not None:
            child.process.stdin.close()
        child.process = None

    def _pass_on(self, number: int) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)

    def _stop(self) -> int:
        """Every process has drained and ended, or was killed after its grace."""
        self._pass_on(signal.SIGTERM)
        limit = time.monotonic() + self._grace + 10.0
        clean = True
        for child in self._children:
            if child.process is None:
                continue
            try:
                clean &= child.process.wait(timeout=max(0.1, limit - time.monotonic())) == 0
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                clean = False
        return 0 if clean else 1


def _after(port: int, number: int) -> int:
    return port + number if port else 0


def cuda_devices() -> list[str]:
    """The CUDA devices that this host gives us, by the names that CUDA_VISIBLE_DEVICES takes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one.strip() for one in visible.split(",") if one.strip() not in ("", "-1")]
    names = [name.removeprefix("nvidia") for name in os.listdir("/dev") if name.startswith("nvidia")]
    return sorted((name for name in names if name.isdigit()), key=int)
