"""Errors on the wire: a code, a message and when to try again, as JSON beside the Flight error."""

import json

import pyarrow as pa
import pyarrow.flight as flight

from qanchor_plugin.errors import (
    BackendError,
    DeadlineError,
    DrainingError,
    EngineError,
    InputDataError,
    LakeError,
    MissingVectorsError,
    OverloadedError,
    QAnchorError,
    UnauthenticatedError,
    WrongEngineError,
)

MAX_MESSAGE_CHARS = 1000
"""gRPC refuses trailers above 8 kB, and a refused trailer hides the error."""

CODES: dict[str, type[QAnchorError]] = {
    "resource_exhausted": OverloadedError,
    "draining": DrainingError,
    "deadline_exceeded": DeadlineError,
    "unauthenticated": UnauthenticatedError,
    "bad_request": InputDataError,
    "wrong_engine": WrongEngineError,
    "lake": LakeError,
    "engine": EngineError,
    "internal": BackendError,
}
"""Every code, and the error that the caller raises for it."""

_FLIGHT: dict[str, type[flight.FlightError]] = {
    "unauthenticated": flight.FlightUnauthenticatedError,
    "deadline_exceeded": flight.FlightTimedOutError,
    "resource_exhausted": flight.FlightUnavailableError,
    "draining": flight.FlightUnavailableError,
}


def code_of(error: Exception) -> str:
    """The code of an error; ``internal`` for one that nobody foresaw."""
    if isinstance(error, MissingVectorsError):
        return "lake"
    found = [code for code, kind in CODES.items() if type(error) is kind]
    found += [code for code, kind in CODES.items() if isinstance(error, kind)]
    return found[0] if found else "internal"


def flight_error(error: Exception) -> flight.FlightError:
    """What a server raises so that :func:`error_of` gives the caller the same error back.

    An error that is not ours says only its kind: its text may hold a user's data.
    """
    code = code_of(error)
    if isinstance(error, QAnchorError):
        message = str(error)[:MAX_MESSAGE_CHARS]
    else:
        message = f"the worker failed ({type(error).__name__}); its log has the request id and the cause."
    body = {"code": code, "message": message, "retry_after_ms": getattr(error, "retry_after_ms", 0)}
    return _FLIGHT.get(code, flight.FlightServerError)(code, json.dumps(body).encode())


def error_of(error: Exception, *, address: str) -> QAnchorError:
    """The error that a caller raises for what Flight raised, with the worker's address in front.

    Args:
        error: a Flight or Arrow error, or an OSError.
        address: of the worker, for the message.
    """
    body = _body(error)
    if body is None:
        return _of_transport(error, address)
    code, message = str(body.get("code")), f"worker {address}: {body.get('message')}"
    kind = CODES.get(code, BackendError)
    if issubclass(kind, OverloadedError):
        after = body.get("retry_after_ms")
        return kind(message, retry_after_ms=after if isinstance(after, int) and after > 0 else 0)
    return kind(message)


def _body(error: Exception) -> dict[str, object] | None:
    info = getattr(error, "extra_info", None)
    if not info:
        return None
    try:
        body = json.loads(bytes(info))
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _of_transport(error: Exception, address: str) -> QAnchorError:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    if isinstance(error, flight.FlightTimedOutError):
        return DeadlineError(f"worker {address} did not answer in time ({first}).")
    if isinstance(error, flight.FlightUnauthenticatedError):
        return UnauthenticatedError(f"worker {address} does not know this caller ({first}). Check the token.")
    if isinstance(error, flight.FlightUnavailableError):
        return BackendError(f"worker {address} cannot be reached ({first}). Check the address and TLS.")
    if isinstance(error, flight.FlightCancelledError | pa.ArrowCancelled):
        return DeadlineError(f"the call of worker {address} was cancelled ({first}).")
    return BackendError(f"worker {address} failed: {type(error).__name__}: {first}.")
