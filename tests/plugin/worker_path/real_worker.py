"""``qanchor worker`` as an operator starts it: a process of its own."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

READY_SECONDS = 120


class RealWorker:
    """A started worker; ``ready()`` returns when it serves.

    Args:
        options: of the command line, after ``qanchor worker``.
        log: gets what it says on stderr.
    """

    def __init__(self, *options: str, log: Path, listen: str = "127.0.0.1:0") -> None:
        command = [sys.executable, "-m", "qanchor_plugin.cli.main", "worker", "--json", "--listen", listen]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._log: IO[bytes] = log.open("ab")
        self.process = subprocess.Popen(
            [*command, "--device", "cpu", "--threads", "1", *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._events: list[dict[str, Any]] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.address = str(self._event("listening")["address"]).split("://")[1]

    def ready(self) -> "RealWorker":
        """The engine is loaded and the lake is there."""
        self._event("ready")
        return self

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is said."""
        self.process.kill()
        self._ended()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for one that does not go."""
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._ended()

    def _ended(self) -> None:
        self.process.wait(timeout=30)
        self._reading.join(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.append(json.loads(line))

    def _event(self, name: str) -> dict[str, Any]:
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            for event in self._events:
                if event["event"] == name:
                    return event
                assert event["event"] != "failed", event
            assert self.process.poll() is None, f"the worker ended with {self.process.returncode}"
            time.sleep(0.05)
        raise AssertionError(f"no {name!r} within {READY_SECONDS} s; the worker said {self._events}")
