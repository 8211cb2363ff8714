"""Prometheus counters of a caller of workers; label sets are fixed and small."""

from prometheus_client import Counter, Gauge

CALLS = Counter(
    "qanchor_pool_calls",
    "Calls of workers by outcome: ok, overloaded, unauthenticated, wrong_engine, broken, deadline, failed, "
    "cancelled (another worker had answered).",
    ["outcome"],
)
HEDGES = Counter(
    "qanchor_pool_second_calls",
    "Calls of a further worker, by reason: slow (no answer yet), failed (an error).",
    ["reason"],
)
OPEN_BREAKERS = Gauge("qanchor_pool_workers_out", "Workers that are left alone after failures in a row.")
WORKERS = Gauge("qanchor_pool_workers", "Workers that are known.")
