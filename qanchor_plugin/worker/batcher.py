"""The bounded queue, and the thread that takes batches from it: online before batch, expired ones never."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from qanchor_plugin.errors import DeadlineError, DrainingError, OverloadedError
from qanchor_plugin.worker.batch import Batch
from qanchor_plugin.worker.config import WorkerConfig
from qanchor_plugin.worker.metrics import Metrics
from qanchor_plugin.worker.request import Piece, Request, TokenEstimate, now, pieces_of

logger = logging.getLogger(__name__)

FIRST_GUESS_SECONDS = 0.01
"""What one embedding is taken to cost before any was computed (for the retry-after)."""

RETRY_MS = (20, 30_000)


class Batcher:
    """Holds accepted requests and computes them in batches.

    Args:
        config: budget, wait and limits.
        compute: answers a batch; whatever goes wrong is in the batch's requests afterwards.
        metrics: of the worker.
    """

    def __init__(self, config: WorkerConfig, compute: Callable[[Batch], None], metrics: Metrics) -> None:
        self._config, self._compute, self._metrics = config, compute, metrics
        self._queues: dict[str, deque[Piece]] = {"online": deque(), "batch": deque()}
        self._changed = threading.Condition()
        self._waiting: dict[Request, int] = {}
        self._closing = ""
        self._ended = False
        self._cell_seconds = FIRST_GUESS_SECONDS
        self.estimate = TokenEstimate()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """The request waits its turn.

        Raises:
            DrainingError: this worker takes no more.
            OverloadedError: the queue is full; says when it will have room, about.
        """
        pieces = pieces_of(request, self.estimate, budget=self._config.batch_tokens)
        limits = self._config.limits
        with self._changed:
            if self._closing:
                raise DrainingError(f"this worker {self._closing}; ask another.", retry_after_ms=1000)
            rows = self._queued_rows()
            full = len(self._waiting) >= limits.queue_requests or rows + len(request.rows) > limits.queue_rows
            if full and self._waiting:
                raise OverloadedError(
                    f"the queue is full ({len(self._waiting)} requests, {rows} rows). Ask again after the "
                    "time given, ask another worker, or start more.",
                    retry_after_ms=self._retry_after_ms(),
                )
            self._waiting[request] = len(pieces)
            self._queues[request.header.priority].extend(pieces)
            self._gauges()
            self._changed.notify_all()

    def drop(self, request: Request) -> None:
        """Nobody waits for the request any more; what is left of it is not computed."""
        with self._changed:
            request.cancelled = True
            self._changed.notify_all()

    def drain(self, why: str) -> None:
        """No request is accepted from now on; those accepted go on."""
        with self._changed:
            self._closing = why
            self._changed.notify_all()

    def num_waiting(self) -> int:
        """Requests that are not answered yet."""
        with self._changed:
            return len(self._waiting)

    def close(self) -> None:
        """The thread has ended; what still waited has failed as draining."""
        with self._changed:
            self._closing = self._closing or "is ending"
            self._ended = True
            left = list(self._waiting)
            self._changed.notify_all()
        for request in left:
            request.fail(DrainingError("this worker ended before it came to this request; ask another."))
        self._thread.join(timeout=5)

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            started = now()
            for piece in batch.pieces:
                request = piece.request
                if not request.started:
                    request.started = started
                    self._metrics.queue_seconds.labels(request.header.priority).observe(
                        started - request.arrived
                    )
            self._compute(batch)
            self._finish(batch, now() - started)

    def _finish(self, batch: Batch, seconds: float) -> None:
        cells = len(batch.rows) * len(batch.asks)
        self._cell_seconds = 0.8 * self._cell_seconds + 0.2 * seconds / max(cells, 1)
        self._metrics.batch_requests.observe(batch.num_requests)
        self._metrics.batch_rows.observe(len(batch.rows))
        self._metrics.compute_seconds.labels(batch.pieces[0].request.header.kind).observe(seconds)
        with self._changed:
            for piece in batch.pieces:
                piece.request.compute_seconds += seconds
                self._left(piece)
            self._gauges()

    def _next(self) -> Batch | None:
        """The next batch, as soon as it is full or its first request has waited long enough."""
        with self._changed:
            while not self._ended:
                self._sweep()
                batch = self._gathered()
                if batch is None:
                    self._changed.wait()
                    continue
                first = batch.pieces[0].request
                patience = first.arrived + self._config.max_wait_ms / 1000 - now()
                if patience > 0 and not self._closing and batch.tokens < self._config.batch_tokens:
                    self._changed.wait(patience)
                    continue
                taken = {id(piece) for piece in batch.pieces}
                queue = self._queues[first.header.priority]
                kept = [piece for piece in queue if id(piece) not in taken]
                queue.clear()
                queue.extend(kept)
                self._gauges()
                return batch
        return None

    def _gathered(self) -> Batch | None:
        """The pieces that would go together now: the first of the foremost queue and what fits to it."""
        queue = self._queues["online"] or self._queues["batch"]
        if not queue:
            return None
        batch = Batch(queue[0])
        for piece in list(queue)[1:]:
            if batch.tokens >= self._config.batch_tokens:
                break
            batch.take(piece, budget=self._config.batch_tokens)
        return batch

    def _sweep(self) -> None:
        """Pieces whose request is answered, cancelled or over its deadline are out of the queues."""
        instant = now()
        for queue in self._queues.values():
            dead = [piece for piece in queue if piece.request.dead(instant)]
            if not dead:
                continue
            kept = [piece for piece in queue if not piece.request.dead(instant)]
            queue.clear()
            queue.extend(kept)
            for piece in dead:
                self._drop_piece(piece, piece.request.dead(instant) or "expired")
        self._gauges()

    def _drop_piece(self, piece: Piece, reason: str) -> None:
        self._left(piece)
        if piece.request.done.is_set():
            return
        self._metrics.dropped.labels(reason).inc()
        piece.request.fail(DeadlineError("the deadline was over before the worker came to this request."))

    def _left(self, piece: Piece) -> None:
        """One piece less of its request is outstanding."""
        left = self._waiting.get(piece.request, 0) - 1
        if left > 0:
            self._waiting[piece.request] = left
        else:
            self._waiting.pop(piece.request, None)

    def _queued_rows(self) -> int:
        return sum(piece.stop - piece.start for queue in self._queues.values() for piece in queue)

    def _retry_after_ms(self) -> int:
        cells = sum(piece.num_cells for queue in self._queues.values() for piece in queue)
        low, high = RETRY_MS
        return int(min(high, max(low, 1000 * cells * self._cell_seconds)))

    def _gauges(self) -> None:
        self._metrics.queued_requests.set(len(self._waiting))
        self._metrics.queued_rows.set(self._queued_rows())
