"""Where the workers are: a list, or a DNS name that is looked up again and again."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from qanchor_plugin.declare.worker_settings import WorkerSettings, split_address
from qanchor_plugin.errors import BackendError

logger = logging.getLogger(__name__)

Resolve = Callable[[str, int], list[str]]


class Discovery(Protocol):
    """Who knows the workers."""

    def addresses(self, *, seconds: float) -> tuple[str, ...]:
        """``host:port`` of every worker, sorted; waits ``seconds`` at most.

        Raises:
            BackendError: none is known yet.
        """


class StaticList:
    """The addresses of the configuration."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._addresses = tuple(sorted(set(addresses)))

    def addresses(self, *, seconds: float) -> tuple[str, ...]:
        """The same every time."""
        return self._addresses


class DnsName:
    """The addresses behind a name; looked up in a thread, for a resolver has no deadline.

    A look-up that fails keeps what was known before. Nobody waits but the very first caller.

    Args:
        name: ``host:port``.
        every_seconds: how old an answer may be before the name is looked up again.
        resolve: (host, port) to addresses; the system's resolver.
    """

    def __init__(self, name: str, *, every_seconds: float, resolve: Resolve | None = None) -> None:
        self._name, self._every, self._resolve = name, every_seconds, resolve or _system_resolver
        self._lock = threading.Lock()
        self._found = threading.Event()
        self._known: tuple[str, ...] = ()
        self._asked_at = -float("inf")
        self._failure = "no answer yet"

    def addresses(self, *, seconds: float) -> tuple[str, ...]:
        """As last looked up.

        Raises:
            BackendError: the name has never been resolved.
        """
        with self._lock:
            due = time.monotonic() - self._asked_at >= self._every
            if due:
                self._asked_at = time.monotonic()
        if due:
            threading.Thread(target=self._look_up, name="qanchor-dns", daemon=True).start()
        if not self._known:
            self._found.wait(seconds)
        if not self._known:
            raise BackendError(
                f"the workers' name {self._name!r} gives no address ({self._failure}). Correct "
                "'qanchor: worker: dns:' in feature_store.yaml, or start the workers behind it."
            )
        return self._known

    def _look_up(self) -> None:
        try:
            found = tuple(sorted(set(self._resolve(*split_address(self._name)))))
        except OSError as error:
            self._failure = str(error)
            logger.warning("workers' name %s cannot be looked up: %s", self._name, error)
            with self._lock:
                self._asked_at = min(self._asked_at, time.monotonic() - self._every + 1.0)
            return
        if found and found != self._known:
            logger.info("workers behind %s: %s", self._name, ", ".join(found))
        self._known = found or self._known
        self._found.set()


def discovery_of(settings: WorkerSettings) -> Discovery:
    """The kind that the configuration asks for."""
    if settings.dns is not None:
        return DnsName(settings.dns, every_seconds=settings.dns_seconds)
    return StaticList(settings.addresses)


def _system_resolver(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [_address(str(sockaddr[0]), int(sockaddr[1])) for *_, sockaddr in found]


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
