"""Connections to workers: a few each, shared by all threads, with TLS and a token from files."""

import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qanchor_plugin.declare.worker_settings import WorkerSettings, split_address
from qanchor_plugin.errors import BackendError

if TYPE_CHECKING:
    import pyarrow.flight as fl

logger = logging.getLogger(__name__)

MAX_BACKOFF_MS = 1000
"""gRPC would wait up to two minutes before it tries a dead address again."""


class Channels:
    """Flight clients by address, made on first use; each reconnects by itself.

    Args:
        settings: addresses are not read here; TLS, token and sizes are.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._clients: dict[str, Iterator[fl.FlightClient]] = {}
        self._open: dict[str, list[fl.FlightClient]] = {}
        self._certificates = self._stamp()
        self._token: tuple[float, bytes] = (-1.0, b"")

    def client(self, address: str) -> "fl.FlightClient":
        """A connection to that worker, in turn; new ones after a certificate file changed.

        Raises:
            BackendError: a certificate file cannot be read.
        """
        with self._lock:
            stamp = self._stamp()
            if stamp != self._certificates:
                self._certificates = stamp
                self._close(list(self._open))
            if address not in self._clients:
                self._open[address] = [self._connect(address) for _ in range(self._settings.connections)]
                self._clients[address] = itertools.cycle(self._open[address])
            return next(self._clients[address])

    def keep_only(self, addresses: tuple[str, ...]) -> None:
        """Connections to workers that are gone are closed."""
        with self._lock:
            self._close([one for one in self._open if one not in addresses])

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The bearer token of every call, as the file has it now; none without a file.

        Raises:
            BackendError: the file cannot be read, or is empty.
        """
        if self._settings.token_file is None:
            return []
        path = Path(self._settings.token_file)
        try:
            changed_at = path.stat().st_mtime
            if changed_at != self._token[0]:
                self._token = (changed_at, path.read_text(encoding="utf-8").strip().encode())
        except (OSError, ValueError) as error:
            raise BackendError(
                f"the workers' token cannot be read from {path} ({error}). "
                "Correct 'qanchor: worker: token_file:'."
            ) from error
        if not self._token[1]:
            raise BackendError(f"the workers' token file {path} is empty; its first line must be the token.")
        return [(b"authorization", b"Bearer " + self._token[1])]

    def close(self) -> None:
        """Every connection is closed."""
        with self._lock:
            self._close(list(self._open))

    def _close(self, addresses: list[str]) -> None:
        for address in addresses:
            del self._clients[address]
            for client in self._open.pop(address):
                client.close()

    def _connect(self, address: str) -> "fl.FlightClient":
        import pyarrow.flight as fl

        settings = self._settings
        options: list[tuple[str, Any]] = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", settings.connect_timeout_ms),
            ("grpc.max_reconnect_backoff_ms", max(MAX_BACKOFF_MS, settings.connect_timeout_ms)),
        ]
        scheme = "grpc+tcp" if settings.tls_ca is None else "grpc+tls"
        return fl.FlightClient(
            f"{scheme}://{address}",
            tls_root_certs=_pem(settings.tls_ca),
            cert_chain=_pem(settings.tls_cert),
            private_key=_pem(settings.tls_key),
            override_hostname=self._name_in_certificate(),
            generic_options=options,
        )

    def _name_in_certificate(self) -> str | None:
        if self._settings.tls_name is not None:
            return self._settings.tls_name
        return None if self._settings.dns is None else split_address(self._settings.dns)[0]

    def _stamp(self) -> tuple[float, ...]:
        paths = (self._settings.tls_ca, self._settings.tls_cert, self._settings.tls_key)
        return tuple(Path(path).stat().st_mtime for path in paths if path and Path(path).exists())


def _pem(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BackendError(
            f"the file {path} cannot be read ({error.strerror}). Correct tls_ca, tls_cert and tls_key under "
            "'qanchor: worker:' in feature_store.yaml."
        ) from error
