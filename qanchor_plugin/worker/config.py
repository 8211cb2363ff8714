"""What one worker process is told: plain values, passed from the supervisor to its processes as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from qanchor_plugin.declare import Settings
from qanchor_plugin.declare.checks import raise_faults, reject_unknown_keys


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Beyond these a request is refused at once.

    Attributes:
        queue_requests / queue_rows / queue_bytes: how much may wait; the next one is told when to come back.
        request_rows / request_asks / request_bytes: of one request.
        query_chars: of one query.
        reading_requests: requests whose rows are still arriving.
        reading_seconds: a request that has not arrived whole by then is given up.
    """

    queue_requests: int = 256
    queue_rows: int = 100_000
    queue_bytes: int = 2 * 1024 * 1024 * 1024
    request_rows: int = 20_000
    request_asks: int = 256
    request_bytes: int = 512 * 1024 * 1024
    query_chars: int = 4_000
    reading_requests: int = 64
    reading_seconds: float = 30.0

    def __post_init__(self) -> None:
        small = [one.name for one in fields(self) if getattr(self, one.name) <= 0]
        raise_faults([f"worker limit {name} must be above 0." for name in small])


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """One worker process.

    Attributes:
        settings: the feature repo's: lake, clock, device, default engine.
        repo: folder of feature_store.yaml, read again at a reload; "" when there is none.
        engines: presets or folders it answers with; the first is the default.
        warm_queries: prepared before it is ready.
        needs_lake: false for a pool that is only sent prefixes: it is ready without a lake.
        host / port / http_port: where it listens; port 0 lets the system choose.
        tls_cert / tls_key / tls_client_ca: PEM files; with the last one callers need a certificate.
        token_file: accepted bearer tokens, one a line; "" with ``tokens`` empty accepts everyone.
        tokens: further accepted tokens (from the environment).
        batch_tokens: soft and query tokens of one engine call, about.
        batch_seconds: how long an online request may have to wait for a call of a batch one, about.
        max_wait_ms: how long the first request of a batch waits for company.
        prefix_bytes: bound of the memory tier; None is the settings'.
        torch_threads: threads of one engine call on a CPU; 0 lets torch choose.
        grace_seconds: accepted requests may take this long after SIGTERM.
        hang_seconds: one batch that takes longer makes ``/live`` say no.
        limits: see :class:`Limits`.
    """

    settings: Settings
    repo: str = ""
    engines: tuple[str, ...]
    warm_queries: tuple[str, ...] = ()
    needs_lake: bool = True
    host: str = "127.0.0.1"
    port: int = 0
    http_port: int = 0
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    token_file: str = ""
    tokens: tuple[str, ...] = ()
    batch_tokens: int = 16_384
    batch_seconds: float = 0.5
    max_wait_ms: float = 2.0
    prefix_bytes: int | None = None
    torch_threads: int = 0
    grace_seconds: float = 30.0
    hang_seconds: float = 300.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        faults = []
        if not self.engines:
            faults.append("a worker needs one engine at least: --engine NAME.")
        if bool(self.tls_cert) != bool(self.tls_key):
            faults.append("--tls-cert and --tls-key go together; give both or neither.")
        if self.tls_client_ca and not self.tls_cert:
            faults.append("--tls-client-ca needs --tls-cert and --tls-key.")
        if self.batch_tokens < 1 or self.batch_seconds <= 0 or self.hang_seconds <= 0:
            faults.append("batch tokens must be 1 or more; batch and hang seconds above 0.")
        if self.max_wait_ms < 0 or self.grace_seconds < 0:
            faults.append("wait and grace must not be negative.")
        raise_faults(faults)

    def at(self, port: int, http_port: int) -> "WorkerConfig":
        """The same worker at other ports."""
        return replace(self, port=port, http_port=http_port)

    def to_json(self) -> str:
        """JSON text; ``from_json`` reads it back equal."""
        return json.dumps(asdict(self), default=_instant)

    @classmethod
    def from_json(cls, text: str) -> "WorkerConfig":
        """The record that ``to_json`` wrote."""
        given: dict[str, Any] = json.loads(text)
        reject_unknown_keys("worker", given, {one.name for one in fields(cls)})
        values: dict[str, Any] = {}
        values |= {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        values |= {"settings": _settings(given["settings"]), "limits": Limits(**given["limits"])}
        return cls(**values)


def _settings(given: Mapping[str, Any]) -> Settings:
    given = {**given, "worker": None, "spark_embeds_on": "executors"}  # a worker asks no other worker
    clock = given["clock"]
    return Settings(**{**given, "clock": None if clock is None else datetime.fromisoformat(clock)})


def _instant(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be passed to a worker process")
