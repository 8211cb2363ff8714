"""What the parts of one worker process share: the engines of this moment, the queue, whether it is ready."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qanchor_plugin.errors import DrainingError, OverloadedError
from qanchor_plugin.worker.auth import Tokens
from qanchor_plugin.worker.batch import Batch
from qanchor_plugin.worker.batcher import Batcher
from qanchor_plugin.worker.config import WorkerConfig
from qanchor_plugin.worker.metrics import Metrics
from qanchor_plugin.worker.serving import Serving


class WorkerState:
    """Not ready until a :class:`Serving` is put in.

    Attributes:
        metrics / tokens / batcher: of this worker.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.metrics = Metrics()
        self.tokens = Tokens(config.token_file, config.tokens)
        self.batcher = Batcher(config, self._compute, self.metrics)
        self._lock = threading.Lock()
        self._serving: Serving | None = None
        self._draining = False
        self._in_flight = 0
        self._reason: str | None = "the engine is being loaded"

    def current(self) -> Serving:
        """The engines that answer a request that arrives now.

        Raises:
            OverloadedError: none is ready yet, or the worker is ending.
        """
        with self._lock:
            serving, reason = self._serving, self._reason
            kind = DrainingError if self._draining else OverloadedError
        if serving is None or reason is not None:
            raise kind(f"this worker is not ready: {reason}. Ask another.", retry_after_ms=1000)
        return serving

    def not_ready(self) -> str | None:
        """Why requests are not taken; None when they are."""
        with self._lock:
            return self._reason

    def waiting_for(self, reason: str) -> None:
        """Not ready, for that reason."""
        with self._lock:
            self._reason = "it is ending" if self._draining else reason
        self.metrics.ready.set(0)

    def swap(self, serving: Serving) -> None:
        """New requests are answered by these engines; those accepted before keep theirs."""
        with self._lock:
            if self._draining:
                return
            self._serving, self._reason = serving, None
        self.metrics.engines(serving.engines)
        self.metrics.ready.set(1)

    def drain(self) -> None:
        """Not ready any more, for good; nothing new is accepted."""
        with self._lock:
            self._draining, self._reason = True, "it is ending"
        self.metrics.ready.set(0)
        self.batcher.drain("is ending")

    @contextmanager
    def one_in_flight(self) -> Iterator[None]:
        """Within, one more request is on its way to its answer."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._in_flight += change
            self.metrics.in_flight.set(self._in_flight)

    def quiet(self, *, arriving: int = 0) -> bool:
        """Whether no request is anywhere between its arrival and its answer, those still arriving aside."""
        with self._lock:
            return self._in_flight <= arriving

    def status(self) -> dict[str, Any]:
        """Facts for people and tests."""
        with self._lock:
            serving, reason = self._serving, self._reason
        facts: dict[str, Any] = {"pid": os.getpid(), "ready": reason is None, "reason": reason}
        if serving is not None:
            memory = serving.backend.memory
            facts |= {
                "engines": serving.engines,
                "lake": serving.settings.lake,
                "counts": dict(serving.backend.counts),
                "memory": {"entries": len(memory), "bytes": memory.held_bytes, "max_bytes": memory.max_bytes},
            }
        return facts

    def _compute(self, batch: Batch) -> None:
        serving = batch.pieces[0].request.serving
        serving.answer(batch)
        for place, ask in enumerate(batch.asks.values()):
            answers = [one[2] for piece in batch.pieces for one in piece.request.answers if one[1] == place]
            self.batcher.estimate.learn(ask, answers)
            break
        serving.watch.observe()
