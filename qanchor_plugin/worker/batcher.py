"""The bounded queue, and the thread that takes batches from it: online before batch, expired ones never."""

import itertools
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

FIRST_GUESS_TOKEN_SECONDS = 1e-4
"""Likewise of one token (for the size of batch requests' pieces)."""

ONLINE_LATELY_SECONDS = 30.0
"""Batch requests go in small pieces for so long after the last online one."""

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
        self._running_since = 0.0
        self._cell_seconds = FIRST_GUESS_SECONDS
        self._token_seconds = FIRST_GUESS_TOKEN_SECONDS
        self._online_at = -ONLINE_LATELY_SECONDS
        self.estimate = TokenEstimate()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """The request waits its turn.

        Raises:
            DrainingError: this worker takes no more.
            OverloadedError: the queue is full; says when it will have room, about.
        """
        online = request.header.priority == "online"
        cut = self._config.batch_tokens if online else self._interruptible_tokens()
        pieces = pieces_of(request, self.estimate, budget=cut)
        with self._changed:
            if self._closing:
                raise DrainingError(f"this worker {self._closing}; ask another.", retry_after_ms=1000)
            if self._waiting and self._is_full(request):
                raise OverloadedError(
                    f"the queue is full ({len(self._waiting)} requests, {self._queued_rows()} rows). "
                    "Ask again after the time given, ask another worker, or start more.",
                    retry_after_ms=self._retry_after_ms(),
                )
            self._online_at = now() if online else self._online_at
            self._waiting[request] = len(pieces)
            self._queues[request.header.priority].extend(pieces)
            self._gauges()
            self._changed.notify_all()

    def running_seconds(self) -> float:
        """How long the batch of this moment has been computed; 0 without one."""
        since = self._running_since
        return now() - since if since else 0.0

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
            started = self._running_since = now()
            for piece in batch.pieces:
                request = piece.request
                if not request.started:
                    request.started = started
                    self._metrics.queue_seconds.labels(request.header.priority).observe(
                        started - request.arrived
                    )
            self._computed(batch)
            self._running_since = 0.0
            self._finish(batch, now() - started)

    def _computed(self, batch: Batch) -> None:
        """The batch's requests are done; this thread outlives whatever happens."""
        try:
            self._compute(batch)
        except Exception as error:
            logger.exception("a batch failed outside the engine")
            for piece in batch.pieces:
                piece.request.fail(error)

    def _finish(self, batch: Batch, seconds: float) -> None:
        cells = len(batch.rows) * len(batch.asks)
        self._cell_seconds = 0.8 * self._cell_seconds + 0.2 * seconds / max(cells, 1)
        self._token_seconds = 0.8 * self._token_seconds + 0.2 * seconds / max(batch.tokens, 1)
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
                if patience > 0 and not self._closing and batch.tokens < self._budget(batch.pieces[0]):
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
        batch, budget = Batch(queue[0]), self._budget(queue[0])
        for piece in itertools.islice(queue, 1, None):
            if batch.tokens >= budget:
                break
            batch.take(piece, budget=budget)
        return batch

    def _budget(self, first: Piece) -> int:
        """Tokens of one call: all that fit, or little where an online request may come in meanwhile."""
        if first.request.header.priority == "online" or now() - self._online_at > ONLINE_LATELY_SECONDS:
            return self._config.batch_tokens
        return self._interruptible_tokens()

    def _interruptible_tokens(self) -> int:
        """Tokens that take about as long as an online request may have to wait for a batch one."""
        return max(1, min(self._config.batch_tokens, int(self._config.batch_seconds / self._token_seconds)))

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

    def _is_full(self, request: Request) -> bool:
        limits = self._config.limits
        num_bytes = sum(one.num_bytes for one in self._waiting) + request.num_bytes
        return (
            len(self._waiting) >= limits.queue_requests
            or self._queued_rows() + len(request.rows) > limits.queue_rows
            or num_bytes > limits.queue_bytes
        )

    def _queued_rows(self) -> int:
        return sum(piece.stop - piece.start for queue in self._queues.values() for piece in queue)

    def _retry_after_ms(self) -> int:
        cells = sum(piece.num_cells for queue in self._queues.values() for piece in queue)
        low, high = RETRY_MS
        return int(min(high, max(low, 1000 * cells * self._cell_seconds)))

    def _gauges(self) -> None:
        self._metrics.queued_requests.set(len(self._waiting))
        self._metrics.queued_rows.set(self._queued_rows())
