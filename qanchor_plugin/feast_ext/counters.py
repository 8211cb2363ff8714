"""Prometheus counters of the online path; label sets are fixed and small."""

from prometheus_client import Counter, Histogram

ANSWERS = Counter(
    "qanchor_online_answers",
    "Anchor rows answered online, by where the answer came from.",
    ["status"],
)
MISSES = Counter(
    "qanchor_online_misses",
    "Anchor rows that the online store could not answer, by reason: missing, stale, foreign identity.",
    ["reason"],
)
BACKEND_FAILURES = Counter(
    "qanchor_backend_failures",
    "Requests whose misses the backend did not answer: over budget or rate, all slots busy, or an error.",
    ["reason"],
)
COALESCED = Counter(
    "qanchor_coalesced_misses",
    "Misses that waited for another request's computation of the same answer.",
)
UNKNOWN_USERS = Counter(
    "qanchor_unknown_users",
    "Answers 'unknown user': found (the lake was asked) and remembered (it had been, a moment ago).",
    ["source"],
)
LAKE_FAILURES = Counter("qanchor_watermark_failures", "Reads of the watermarks that failed.")
WRITE_BACK = Counter(
    "qanchor_write_back_rows",
    "Computed answers written back, by target (online, history) and outcome (written, dropped, failed).",
    ["target", "outcome"],
)
COMPUTE_SECONDS = Histogram("qanchor_compute_seconds", "Seconds one request waited for its misses.")
