"""``qanchor worker`` as a process of its own, and what it says while it lives."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
_COMMAND = ["-m", "qanchor_plugin.cli.main", "worker", "--listen", "127.0.0.1:0", "--json"]
START_SECONDS = 300.0
"""Bound on a start: seconds on a quiet machine, minutes on one that runs other tests."""


class Process:
    """The command, started with ``--json``; its events are read as they come.

    Args:
        folder: a feature repo, where stderr is kept too.
        arguments: further options.
    """

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self._log = folder / "stderr.txt"
        with self._log.open("a") as stderr:
            self.popen = subprocess.Popen(
                [sys.executable, *_COMMAND, "--repo", str(folder), *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONPATH": str(REPO), **environment},
            )
        self.events: list[dict[str, Any]] = []
        self._new: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._new.put(json.loads(line))

    def event(self, name: str, *, seconds: float = START_SECONDS) -> dict[str, Any]:
        """The next event of that name; others that come before it are kept in ``events``."""
        limit = time.monotonic() + seconds
        while True:
            try:
                found = self._new.get(timeout=max(0.01, limit - time.monotonic()))
            except queue.Empty as error:
                raise AssertionError(f"no event {name!r}; {self.events}\n{self.log()[-2000:]}") from error
            self.events.append(found)
            if found["event"] == name:
                return found

    def log(self) -> str:
        """Its stderr so far."""
        return self._log.read_text()

    def terminate(self, *, seconds: float = 60.0) -> int:
        """SIGTERM; the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=seconds)

    def close(self) -> None:
        """It is gone, whatever state it was in."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


def get(url: str) -> tuple[int, str]:
    """Status and body of a page."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
