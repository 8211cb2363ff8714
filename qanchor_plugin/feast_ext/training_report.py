"""Which rows of a training set a trainer should look at, and how many there are of each kind."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from qanchor_plugin.feast_ext.asof_join import quoted

KINDS = ("computed", "stored", "empty", "unknown", "missing", "outside_ttl", "late")
MEANING = {
    "computed": "computed as of the row's instant",
    "stored": "read as it was served",
    "empty": "a known user with no visible event: the defined empty embedding",
    "unknown": "a user whom the lake does not know, or a row without key or instant: null",
    "missing": "nothing had been served by then: null",
    "outside_ttl": "something had been served, but was no longer fresh: null",
    "late": "the instant lies after what the lake is complete to: events may be absent",
}


def status_of(view: str) -> str:
    """The hidden column with a view's status."""
    return f"{view}__status"


def events_of(view: str) -> str:
    """The hidden column with how many events were visible."""
    return f"{view}__num_events"


def flags(view: str, at: str, complete_to: datetime | None) -> dict[str, Column]:
    """Of each kind: whether a row is of it."""
    status = quoted(status_of(view))
    late = F.lit(True) if complete_to is None else quoted(at) > F.lit(complete_to)
    return {
        "computed": status == "computed",
        "stored": status == "stored",
        "empty": status.isin("computed", "stored") & (quoted(events_of(view)) == 0),
        "unknown": status == "unknown",
        "missing": status == "missing",
        "outside_ttl": status == "stale",
        "late": F.coalesce(late, F.lit(False)),
    }


def counts_of(rows: DataFrame, views: Iterable[str], at: str, complete_to: datetime | None) -> dict[str, Any]:
    """How many rows, and of each view how many of each kind."""
    views = list(views)
    sums = [
        F.count_if(flag).alias(f"{position}:{kind}")
        for position, view in enumerate(views)
        for kind, flag in flags(view, at, complete_to).items()
    ]
    found = rows.agg(F.count(F.lit(1)).alias("rows"), *sums).collect()[0].asDict()
    return {
        "rows": found["rows"],
        "views": {
            view: {kind: found[f"{position}:{kind}"] for kind in KINDS} for position, view in enumerate(views)
        },
    }


def added(counts: Iterable[Mapping[str, Any]], views: Iterable[str]) -> dict[str, dict[str, int]]:
    """The chunks' counts together."""
    counts = list(counts)
    return {
        view: {kind: sum(one["views"].get(view, {}).get(kind, 0) for one in counts) for kind in KINDS}
        for view in views
    }


def to_look_at(
    rows: DataFrame, views: Iterable[str], at: str, columns: Iterable[str], complete_to: datetime | None
) -> DataFrame:
    """One row for each (row, view, reason) that is not an ordinary answer: the caller's columns beside."""
    views = list(views)
    reasons = [
        F.when(flag, F.struct(F.lit(view).alias("view"), F.lit(kind).alias("reason")))
        for view in views
        for kind, flag in flags(view, at, complete_to).items()
        if kind not in ("computed", "stored")
    ]
    each = rows.withColumn("__why", F.explode(F.array_compact(F.array(*reasons))))
    return each.select(*[quoted(name) for name in columns], "__why.view", "__why.reason")
