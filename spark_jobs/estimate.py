"""How long a refresh will take, from what past runs took."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from spark_jobs.runs import SUCCEEDED
from spark_jobs.tables import Lake

NUM_RUNS = 30
"""Newest runs of a job that are asked."""

_UNITS = {"sequences": "rows", "vectors": "", "prefixes": "users", "embeddings": "written"}
"""What a job's time grows with: a number among the counts of each part, or the part itself."""


def estimated_seconds(lake: Lake, units: Mapping[str, int]) -> dict[str, float | None]:
    """Seconds by job, and ``total``; None where no run has ended yet.

    Args:
        units: what is to be done, by job: rows, texts, users, answers.
    """
    past = _past(lake, list(units))
    found = {job: estimate(num, past.get(job, [])) for job, num in units.items()}
    known = [one for one in found.values() if one is not None]
    return {**found, "total": round(sum(known), 1) if len(known) == len(found) else None}


def estimate(units: int, past: Sequence[tuple[int, float]]) -> float | None:
    """Seconds for so many units: a line through past (units, seconds), never falling; None without any."""
    if not past:
        return None
    done, seconds = (np.array(column, np.float64) for column in zip(*past, strict=True))
    if len(np.unique(done)) < 2:
        more = units / done[0] if done[0] else 1.0
        return round(float(seconds.mean() * max(1.0, more)), 1)
    slope = max(0.0, float(np.polyfit(done, seconds, 1)[0]))
    base = max(0.0, float((seconds - slope * done).mean()))
    return round(base + slope * units, 1)


def units_of(job: str, counts: Mapping[str, Any]) -> int:
    """How much a run of the job did, by the counts that it recorded."""
    name = _UNITS[job]
    parts = [part if not name else part.get(name, 0) for part in counts.values()]
    return sum(int(part) for part in parts)


def _past(lake: Lake, jobs: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    rows = lake.read("job_runs").where(F.col(S.JOB).isin(list(jobs)) & (F.col(S.STATE) == SUCCEEDED))
    seconds = (F.unix_micros(S.ENDED_AT) - F.unix_micros(S.STARTED_AT)) / 1e6
    newest = rows.select(S.JOB, S.RUN, S.COUNTS, seconds.alias("seconds")).orderBy(F.col(S.RUN).desc())
    found: dict[str, list[tuple[int, float]]] = {}
    for row in newest.limit(NUM_RUNS * len(jobs)).collect():
        counts = json.loads(row[S.COUNTS])
        found.setdefault(row[S.JOB], []).append((units_of(row[S.JOB], counts), row["seconds"]))
    return found
