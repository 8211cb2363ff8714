"""One worker process: listens at once, is ready when its engines are warm, drops no request at its end."""

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import QAnchorError
from qanchor_plugin.worker.config import WorkerConfig
from qanchor_plugin.worker.health import HealthServer
from qanchor_plugin.worker.metrics import OK
from qanchor_plugin.worker.server import AnchorServer
from qanchor_plugin.worker.serving import Serving
from qanchor_plugin.worker.state import WorkerState

logger = logging.getLogger("qanchor.worker")

Announce = Callable[[dict[str, Any]], None]
_WORDS: dict[int, str] = {signal.SIGTERM: "stop", signal.SIGINT: "stop", signal.SIGHUP: "reload"}
LAKE_SECONDS = 2.0
"""How often a lake that is not there yet is looked for."""


class WorkerProcess:
    """The parts of one worker, from start to end.

    Args:
        config: what it is told.
        announce: given ``listening``, ``ready``, ``reloaded``, ``failed`` and ``ended`` as they happen.
    """

    def __init__(self, config: WorkerConfig, announce: Announce) -> None:
        self._config, self._announce = config, announce
        self._events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reloading = threading.Lock()
        self._settings = config.settings
        self.state = WorkerState(config)
        self.server = AnchorServer(config, self.state, self.reload)
        self.health = HealthServer(
            config.host,
            config.http_port,
            live=self._hung,
            ready=self.state.not_ready,
            metrics=self.state.metrics.text,
        )

    def run(self) -> int:
        """Serves until a signal or :meth:`stop`; 0, or 1 when it could not start or finish in time."""
        for number in _WORDS:
            signal.signal(number, lambda given, _frame: self._events.put(_WORDS[given]))
        self._announce(
            {
                "event": "listening",
                "address": self.server.address,
                "health": f"http://{self._config.host}:{self.health.port}",
                "pid": os.getpid(),
            }
        )
        threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()
        while True:
            try:
                word = self._events.get(timeout=1.0)  # a signal interrupts the wait, not the loop
            except queue.Empty:
                continue
            if word == "reload":
                threading.Thread(target=self._reload_logged, name="reload", daemon=True).start()
            elif word == "failed":
                self._end(0.0)
                return 1
            else:
                return 0 if self._end(self._config.grace_seconds) else 1

    def stop(self) -> None:
        """As SIGTERM does: :meth:`run` drains and returns."""
        self._events.put("stop")

    def reload(self) -> dict[str, str]:
        """Engines, settings and tokens are read anew, beside those that answer; then they take over.

        Raises:
            QAnchorError: they cannot be had; the old ones go on.
        """
        with self._reloading:
            outcome = "failed"
            try:
                self.state.tokens.reload()
                settings = self._read_settings()
                serving = Serving(self._config, settings, self.state.metrics, anew=True)
                old = (
                    self.state.current()
                )  # one that was never ready, or is ending, is not made ready by this
                serving.warm_like(old)
                self.state.swap(serving)
                outcome = OK
            finally:
                self.state.metrics.reloads.labels(outcome).inc()
        logger.info("reloaded", extra={"engines": serving.engines})
        self._announce({"event": "reloaded", "engines": serving.engines})
        return serving.engines

    def _hung(self) -> str | None:
        """Why the process is not alive any more, whatever its threads say."""
        seconds = self.state.batcher.running_seconds()
        if seconds <= self._config.hang_seconds:
            return None
        return f"one batch has been computed for {seconds:.0f} s"

    def _read_settings(self) -> Settings:
        if not self._config.repo:
            return self._settings
        from qanchor_plugin.worker.settings import settings_of

        return replace(settings_of(Path(self._config.repo)), device=self._settings.device)

    def _reload_logged(self) -> None:
        try:
            self.reload()
        except (QAnchorError, OSError, RuntimeError, ValueError) as error:
            logger.error("reload failed, the old engines go on: %s", error)
            self._announce({"event": "reload_failed", "error": str(error)})

    def _warm_up(self) -> None:
        try:
            self._set_up_torch()
            serving = Serving(self._config, self._settings, self.state.metrics, anew=False)
            while self._config.needs_lake and (fault := serving.lake_fault()) is not None:
                self.state.waiting_for(fault)
                logger.warning("waiting for the lake: %s", fault)
                time.sleep(LAKE_SECONDS)
            self.state.swap(serving)
        except Exception as error:
            logger.exception("the worker cannot start")
            self._announce({"event": "failed", "error": str(error)})
            self._events.put("failed")
            return
        tiers = ["memory", *(["disk"] if serving.settings.prefix_folder else []), "delta"]
        self._announce(
            {
                "event": "ready",
                "engines": serving.engines,
                "lake": serving.settings.lake if self._config.needs_lake else None,
                "tiers": tiers if self._config.needs_lake else [],
            }
        )

    def _set_up_torch(self) -> None:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # not a log line
        if self._config.torch_threads:
            import torch

            torch.set_num_threads(self._config.torch_threads)

    def _end(self, grace_seconds: float) -> bool:
        """Nothing is served any more; whether all that was accepted was answered first."""
        self.state.drain()
        limit = time.monotonic() + grace_seconds
        while not self.server.quiet() and time.monotonic() < limit:
            time.sleep(0.02)
        clean = self.server.quiet()
        self.state.batcher.close()
        # A stream whose caller vanished would hold the server for ever: it gets a moment, no more.
        ending = threading.Thread(target=self.server.shutdown, name="shutdown", daemon=True)
        ending.start()
        ending.join(timeout=2.0)
        self.health.close()
        self._announce({"event": "ended", "clean": clean})
        return clean


def announce_json(event: dict[str, Any]) -> None:
    """The event stands on stdout as one line of JSON."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
