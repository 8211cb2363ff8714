"""What a worker counts, for Prometheus: every label has a fixed set of values."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from qanchor_plugin.backend.wire import CODES, KINDS, PRIORITIES

if TYPE_CHECKING:
    from qanchor_plugin.backend import LocalBackend

OK = "ok"
OUTCOMES = (OK, "cancelled", *CODES)
STAGES = ("lake", "prefix", "embed")
NAME = "qanchor_worker_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Metrics:
    """The worker's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._count(self.registry)
        self._time(self.registry)
        self._gauge(self.registry)
        self._engines: set[tuple[str, str]] = set()
        self._touch()

    def _count(self, made: CollectorRegistry) -> None:
        """What came, what became of it, and where prefixes came from."""
        name = NAME
        self.requests = Counter(
            f"{name}requests", "Requests answered or refused", ["kind", "priority", "code"], registry=made
        )
        self.refused = Counter(f"{name}unauthenticated", "Calls without an accepted token", registry=made)
        self.rows = Counter(f"{name}rows", "Rows (users or prefixes) answered", ["kind"], registry=made)
        self.answers = Counter(f"{name}answers", "Embeddings sent, nulls included", registry=made)
        self.unknown = Counter(f"{name}unknown_users", "Rows of users that the lake lacks", registry=made)
        self.prefixes = Counter(
            f"{name}prefixes", "Prefixes by where they came from", ["tier"], registry=made
        )
        self.tiers = Counter(
            f"{name}tier",
            "Lookups of a tier of prefixes, by what came of them",
            ["tier", "outcome"],
            registry=made,
        )
        self.tier_bytes = Counter(
            f"{name}tier_read_bytes", "Read from a tier of prefixes", ["tier"], registry=made
        )
        self.kv = Counter(f"{name}kv", "Keys and values used, by how they came about", ["how"], registry=made)
        self.dropped = Counter(
            f"{name}dropped", "Requests dropped from the queue, not computed", ["reason"], registry=made
        )
        self.reloads = Counter(f"{name}reloads", "Reloads of engine and settings", ["outcome"], registry=made)

    def _time(self, made: CollectorRegistry) -> None:
        """How long requests and batches take, and how large batches are."""
        name = NAME
        self.queue_seconds = Histogram(
            f"{name}queue_seconds", "Waiting before compute", ["priority"], buckets=_SECONDS, registry=made
        )
        self.compute_seconds = Histogram(
            f"{name}compute_seconds", "One batch, all stages", ["kind"], buckets=_SECONDS, registry=made
        )
        self.stage_seconds = Histogram(
            f"{name}stage_seconds",
            "One batch: lake read, prefixes found or built, embedding",
            ["stage"],
            buckets=_SECONDS,
            registry=made,
        )
        self.request_seconds = Histogram(
            f"{name}request_seconds", "Arrival to answer", ["priority"], buckets=_SECONDS, registry=made
        )
        self.batch_requests = Histogram(
            f"{name}batch_requests", "Requests merged into one batch", buckets=_SIZES, registry=made
        )
        self.batch_rows = Histogram(f"{name}batch_rows", "Rows of one batch", buckets=_SIZES, registry=made)

    def _gauge(self, made: CollectorRegistry) -> None:
        """What stands now."""
        name = NAME
        self.queued_requests = Gauge(f"{name}queued_requests", "Accepted, not yet answered", registry=made)
        self.queued_rows = Gauge(f"{name}queued_rows", "Rows waiting now", registry=made)
        self.in_flight = Gauge(
            f"{name}in_flight", "Requests arrived or arriving, not yet answered", registry=made
        )
        self.ready = Gauge(f"{name}ready", "1 when it takes requests", registry=made)
        self.memory_bytes = Gauge(f"{name}memory_tier_bytes", "Held by the memory tier", registry=made)
        self.engine = Gauge(
            f"{name}engine", "1 for each engine that answers now", ["engine", "digest"], registry=made
        )

    def _touch(self) -> None:
        """Every series exists from the start, so that a rate over it is never absent."""
        for kind in KINDS:
            self.rows.labels(kind)
            for priority in PRIORITIES:
                for code in OUTCOMES:
                    self.requests.labels(kind, priority, code)
        for reason in ("expired", "cancelled"):
            self.dropped.labels(reason)
        for outcome in (OK, "failed"):
            self.reloads.labels(outcome)

    def engines(self, digests: Mapping[str, str]) -> None:
        """The engine series are these and no others."""
        for gone in self._engines - set(digests.items()):
            self.engine.remove(*gone)
        self._engines = set(digests.items())
        for name, digest in self._engines:
            self.engine.labels(name, digest).set(1)

    def text(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class BackendWatch:
    """Turns a backend's own running counts into metrics, batch by batch."""

    def __init__(self, metrics: Metrics, backend: "LocalBackend") -> None:
        self._metrics, self._backend = metrics, backend
        self._counts: dict[str, int] = {}
        self._tiers: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, float] = {}

    def observe(self) -> None:
        """What the backend counted since the last call stands in the metrics."""
        for name, count in list(self._backend.counts.items()):
            new = count - self._counts.get(name, 0)
            self._counts[name] = count
            if new > 0 and name == "unknown_user":
                self._metrics.unknown.inc(new)
            elif new > 0 and name.startswith("prefix_"):
                self._metrics.prefixes.labels(name.removeprefix("prefix_")).inc(new)
            elif new > 0 and name.startswith("kv_"):
                self._metrics.kv.labels(name.removeprefix("kv_")).inc(new)
        self._observe_tiers()
        for stage in STAGES:
            total = self._backend.seconds[stage]
            spent = total - self._seconds.get(stage, 0.0)
            self._seconds[stage] = total
            if spent > 0:
                self._metrics.stage_seconds.labels(stage).observe(spent)
        self._metrics.memory_bytes.set(self._backend.memory.held_bytes)

    def _observe_tiers(self) -> None:
        for (tier, outcome), count in self._backend.store.counts.items():
            new = count - self._tiers.get((tier, outcome), 0)
            self._tiers[tier, outcome] = count
            if new > 0 and outcome == "bytes":
                self._metrics.tier_bytes.labels(tier).inc(new)
            elif new > 0:
                self._metrics.tiers.labels(tier, outcome).inc(new)
