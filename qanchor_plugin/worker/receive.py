"""A request as it arrives: header and rows read within the limits, before anything is computed."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from qanchor_plugin.backend.wire import Header, read_prefixes, read_users
from qanchor_plugin.errors import InputDataError, OverloadedError
from qanchor_plugin.worker.config import Limits
from qanchor_plugin.worker.request import Row, now


def check_header(header: Header, limits: Limits) -> None:
    """Nothing, where the header keeps within the limits.

    Raises:
        InputDataError: too many queries, or one too long.
    """
    if len(header.asks) > limits.request_asks:
        raise InputDataError(
            f"the request asks {len(header.asks)} queries, at most {limits.request_asks} are taken at a time."
        )
    longest = max(len(ask.query) for ask in header.asks)
    if longest > limits.query_chars:
        raise InputDataError(
            f"a query has {longest:,} characters, at most {limits.query_chars:,} are read. Shorten it."
        )


def read_rows(reader: Any, header: Header, limits: Limits) -> Sequence[Row]:
    """The rows of a request, in order.

    Args:
        reader: of a Flight exchange.
        header: says of which kind they are.
        limits: of rows and bytes.

    Raises:
        InputDataError: too many, torn, or of another schema.
    """
    rows: list[Row] = []
    num_bytes = 0
    for batch in _batches(reader):
        num_bytes += batch.get_total_buffer_size()
        if num_bytes > limits.request_bytes or len(rows) + batch.num_rows > limits.request_rows:
            raise InputDataError(
                f"the request has more than {limits.request_rows:,} rows or {limits.request_bytes:,} bytes. "
                "Send it in parts."
            )
        if header.kind == "users":
            rows += [(user, header.cutoff or 0) for user in read_users(batch)]
        else:
            rows += read_prefixes(batch)
    if not rows:
        raise InputDataError("the request has no rows; send one at least.")
    if header.kind == "users" and len(set(rows)) < len(rows):
        raise InputDataError("the request names a user twice; name each once.")
    return rows


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            chunk = reader.read_chunk()
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise InputDataError(f"the request's rows broke off ({type(error).__name__}).") from error
        if chunk.data is not None:
            yield chunk.data


class Arrivals:
    """Bounds the requests whose rows are still on their way.

    A caller whose machine vanished leaves a stream that never ends and a thread that cannot be called
    back; such a one stops counting after ``reading_seconds``, so that it does not take room for ever.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._since: dict[int, float] = {}

    def count(self) -> int:
        """Requests that are arriving, those given up among them."""
        with self._lock:
            return len(self._since)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Within, one more request is arriving.

        Raises:
            OverloadedError: too many are already.
        """
        key, instant = threading.get_ident(), now()
        with self._lock:
            oldest = instant - self._limits.reading_seconds
            arriving = sum(since > oldest for since in self._since.values())
            if arriving >= self._limits.reading_requests:
                raise OverloadedError(
                    f"{arriving} requests are still being sent to this worker; ask another.",
                    retry_after_ms=100,
                )
            self._since[key] = instant
        try:
            yield
        finally:
            with self._lock:
                self._since.pop(key, None)
