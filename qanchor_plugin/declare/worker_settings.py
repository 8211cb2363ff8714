"""The ``qanchor: worker:`` section of feature_store.yaml: where workers are, and how they are asked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from qanchor_plugin.declare.checks import raise_faults, reject_unknown_keys
from qanchor_plugin.errors import DeclarationError

WHERE = "feature_store.yaml, qanchor, worker"
_FILES = ("tls_ca", "tls_cert", "tls_key", "token_file")
_AT_LEAST_ONE = ("connections", "connect_timeout_ms", "timeout_ms", "attempts", "breaker_failures")


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """A pool of workers and the manners of asking it; no section means: this process computes.

    Attributes:
        addresses: ``host:port`` of each worker; or give ``dns``.
        dns: ``host:port`` of a name with an address for each worker, such as a headless service.
        dns_seconds: how often it is looked up.
        token_file: its first line is sent as the bearer token; read again when it changes.
        tls_ca: PEM of who signed the workers' certificates; given, every call is encrypted.
        tls_cert, tls_key: PEM of our own certificate, where workers ask for one (mTLS); both or none.
        tls_name: the name in the workers' certificates where it is not the host's.
        hedge_ms: after this long without an answer a second worker is asked as well; 0 never.
        connect_timeout_ms: bound on making a connection.
        timeout_ms: bound on a call that has no budget of its own (jobs, ``qanchor embed``).
        connections: connections to each worker.
        attempts: workers asked for one answer, at most, before the pool is given a pause.
        breaker_failures: failures in a row after which a worker is left alone …
        breaker_seconds: … for so long; then one call tries it.
    """

    addresses: tuple[str, ...] = ()
    dns: str | None = None
    dns_seconds: float = 10.0
    token_file: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_name: str | None = None
    hedge_ms: int = 250
    connect_timeout_ms: int = 1000
    timeout_ms: int = 120_000
    connections: int = 2
    attempts: int = 3
    breaker_failures: int = 3
    breaker_seconds: float = 5.0

    def __post_init__(self) -> None:
        faults = [f"address {one!r} is not host:port." for one in self._named() if not _is_address(one)]
        if bool(self.addresses) == bool(self.dns):
            faults.append("give 'addresses' (a list of host:port) or 'dns' (one host:port), not both.")
        if bool(self.tls_cert) != bool(self.tls_key):
            faults.append("tls_cert and tls_key go together; give both, or none.")
        if self.tls_cert and not self.tls_ca:
            faults.append("tls_cert needs tls_ca: a certificate is only shown on an encrypted connection.")
        faults += [f"{name} is {getattr(self, name)}; it must be 1 or more."
                   for name in _AT_LEAST_ONE if getattr(self, name) < 1]  # fmt: skip
        faults += [f"{name} is {getattr(self, name)}; it must be above 0."
                   for name in ("dns_seconds", "breaker_seconds") if getattr(self, name) <= 0]  # fmt: skip
        if self.hedge_ms < 0:
            faults.append(f"hedge_ms is {self.hedge_ms}; it must be 0 (never) or more.")
        raise_faults([f"{WHERE}: {fault}" for fault in faults])

    def _named(self) -> tuple[str, ...]:
        return self.addresses + ((self.dns,) if self.dns else ())

    @classmethod
    def from_mapping(cls, given: Any, *, repo_path: Path) -> "WorkerSettings":
        """The section as parsed, files made absolute.

        Raises:
            DeclarationError: not a mapping, or an unknown or unusable key.
        """
        if not isinstance(given, Mapping):
            raise DeclarationError(f"{WHERE}: is {given!r}; write it as a section with 'addresses' or 'dns'.")
        reject_unknown_keys(WHERE, given, {one.name for one in fields(cls)})
        values = dict(given)
        addresses = values.get("addresses") or ()
        values["addresses"] = (addresses,) if isinstance(addresses, str) else tuple(map(str, addresses))
        for name in _FILES:
            if values.get(name):
                values[name] = str((repo_path / str(values[name])).resolve())
        return cls(**values)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` (``[::1]:port`` for IPv6)."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65_536
