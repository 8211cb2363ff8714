"""The Flight server: one exchange a request, and three actions."""

import base64
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from qanchor_plugin.backend.wire import (
    ANSWERS,
    End,
    Header,
    answer_batches,
    code_of,
    flight_error,
)
from qanchor_plugin.errors import DeadlineError, DeclarationError, InputDataError, OverloadedError
from qanchor_plugin.worker.auth import TokenCheck
from qanchor_plugin.worker.config import WorkerConfig
from qanchor_plugin.worker.metrics import OK
from qanchor_plugin.worker.receive import Arrivals, check_header, read_rows
from qanchor_plugin.worker.request import Request, now
from qanchor_plugin.worker.state import WorkerState

logger = logging.getLogger("qanchor.worker.requests")

LOOK_SECONDS = 0.1
"""How often a waiting request looks whether its caller is still there."""

ACTIONS = {
    "status": "Engines, queue and tiers of this worker, as JSON.",
    "reload": "Read settings, tokens and engines anew; the old ones finish what they have.",
    "forget": 'Drop users from the memory caches: {"users": ["<base64 of the entity key>", ...]}.',
}


class CallerGoneError(Exception):
    """Nobody reads the answer any more."""


class AnchorServer(flight.FlightServerBase):
    """Answers exchanges from the state's batcher.

    Args:
        config: where it listens, TLS and limits.
        state: what answers.
        reload: reads engines and settings anew; returns the new engines.
    """

    def __init__(
        self, config: WorkerConfig, state: WorkerState, reload: Callable[[], dict[str, str]]
    ) -> None:
        self._config, self._state, self._reload = config, state, reload
        self._arrivals = Arrivals(config.limits)
        scheme = "grpc+tls" if config.tls_cert else "grpc"
        super().__init__(
            f"{scheme}://{config.host}:{config.port}",
            middleware={"token": TokenCheck(state.tokens, state.metrics.refused.inc)},
            **_tls(config),
        )
        self.address = f"{scheme}://{config.host}:{self.port}"

    def quiet(self) -> bool:
        """Whether every request that had arrived has its answer."""
        return self._state.quiet(arriving=self._arrivals.count())

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """One request is answered in full, or ends in an error with a code."""
        with self._state.one_in_flight():
            self._exchange(context, descriptor, reader, writer)

    def _exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        arrived = now()
        metrics = self._state.metrics
        header: Header | None = None
        code = "internal"
        try:
            header = Header.from_bytes(descriptor.command or b"")
            request = self._received(header, reader, arrived)
            self._state.batcher.submit(request)
            self._await(context, request)
            self._send(writer, request)
            code = OK
            _log(request, arrived)
        except CallerGoneError as error:
            code = "cancelled"
            raise flight.FlightCancelledError("the caller went away") from error
        except Exception as error:
            code = code_of(error)
            _log_failed(header, code, error, arrived)
            raise flight_error(error) from error
        finally:
            kind, priority = (header.kind, header.priority) if header else ("users", "online")
            metrics.requests.labels(kind, priority, code).inc()
            metrics.request_seconds.labels(priority).observe(now() - arrived)

    def _received(self, header: Header, reader: Any, arrived: float) -> Request:
        """The request with its rows, resolved against the engines of this moment."""
        check_header(header, self._config.limits)
        serving = self._state.current()
        with self._arrivals.one():
            rows = read_rows(reader, header, self._config.limits)
        return Request(
            header=header,
            rows=rows,
            asks=tuple(serving.resolved(ask) for ask in header.asks),
            serving=serving,
            arrived=arrived,
            deadline=arrived + header.deadline_ms / 1000,
        )

    def _await(self, context: Any, request: Request) -> None:
        """The request is answered.

        Raises:
            DeadlineError: its time was over first.
            CallerGoneError: nobody waits any more.
            QAnchorError: whatever the engine or the lake said.
        """
        while not request.done.wait(min(LOOK_SECONDS, max(0.0, request.deadline - now()))):
            if context.is_cancelled():
                self._state.batcher.drop(request)
                raise CallerGoneError
            if now() >= request.deadline:
                self._state.batcher.drop(request)
                raise DeadlineError(
                    f"no answer within the {request.header.deadline_ms} ms that the caller gave."
                )
        if request.error is not None:
            raise request.error

    def _send(self, writer: Any, request: Request) -> None:
        metrics = self._state.metrics
        answers = request.answers
        engines = {
            asked.engine: request.serving.engines[resolved.engine]
            for asked, resolved in zip(request.header.asks, request.asks, strict=True)
        }
        end = End(
            rows=len(answers),
            engines=engines,
            request_id=request.header.request_id,
            queue_ms=1000 * (request.started - request.arrived),
            compute_ms=1000 * request.compute_seconds,
        )
        try:
            writer.begin(ANSWERS)
            for batch in answer_batches(answers):
                writer.write_batch(batch)
            writer.write_metadata(end.to_bytes())
        except (pa.ArrowException, OSError) as error:
            raise CallerGoneError from error
        metrics.rows.labels(request.header.kind).inc(len(request.rows))
        metrics.answers.inc(len(answers))

    # --- actions --------------------------------------------------------------------------------

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        """What :meth:`do_action` takes."""
        return list(ACTIONS.items())

    def do_action(self, context: Any, action: Any) -> Iterator[flight.Result]:
        """One JSON result."""
        try:
            body = self._acted(action.type, action.body.to_pybytes() if action.body else b"")
        except Exception as error:
            logger.warning("action failed", extra={"action": action.type, "error": str(error)})
            raise flight_error(error) from error
        yield flight.Result(json.dumps(body).encode())

    def _acted(self, name: str, body: bytes) -> dict[str, Any]:
        if name == "status":
            return {"address": self.address, **self._state.status()}
        if name == "reload":
            return {"engines": self._reload()}
        if name == "forget":
            return {"dropped": self._state.current().backend.forget(_users(body))}
        raise InputDataError(f"no action {name!r}; there are {sorted(ACTIONS)}.")


def _users(body: bytes) -> list[bytes]:
    try:
        return [base64.b64decode(user, validate=True) for user in json.loads(body)["users"]]
    except (ValueError, TypeError, KeyError) as error:
        raise InputDataError(f"the body of forget cannot be read; send {ACTIONS['forget']}") from error


def _tls(config: WorkerConfig) -> dict[str, Any]:
    if not config.tls_cert:
        return {}
    cert, key = _pem(config.tls_cert), _pem(config.tls_key)
    given: dict[str, Any] = {"tls_certificates": [(cert, key)]}
    if config.tls_client_ca:
        given |= {"verify_client": True, "root_certificates": _pem(config.tls_client_ca)}
    return given


def _pem(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise DeclarationError(f"the TLS file {file} cannot be read ({error}).") from error


def _log(request: Request, arrived: float) -> None:
    logger.info(
        "answered",
        extra={
            "request_id": request.header.request_id,
            "kind": request.header.kind,
            "priority": request.header.priority,
            "rows": len(request.rows),
            "asks": len(request.asks),
            "queue_ms": round(1000 * (request.started - request.arrived), 2),
            "compute_ms": round(1000 * request.compute_seconds, 2),
            "total_ms": round(1000 * (now() - arrived), 2),
        },
    )


def _log_failed(header: Header | None, code: str, error: Exception, arrived: float) -> None:
    facts = {
        "request_id": header.request_id if header else f"unread-{uuid.uuid4().hex[:8]}",
        "code": code,
        "total_ms": round(1000 * (now() - arrived), 2),
    }
    if code == "internal":
        logger.error("failed", extra=facts, exc_info=error)
    else:
        level = logging.DEBUG if isinstance(error, OverloadedError) else logging.WARNING
        logger.log(level, "refused: %s", error, extra=facts)
