"""``job_runs``: what each run consumed, did and completed."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from spark_jobs.source_changes import FINGERPRINT, Consumed
from spark_jobs.sources import Batch
from spark_jobs.tables import Lake

SUCCEEDED, FAILED = "succeeded", "failed"
SCENARIO_JOB = "scenario"


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """One row of ``job_runs``.

    ``between`` are the seconds since the run's start at which the job began and ended; None is the whole run.
    """

    job: str
    state: str = SUCCEEDED
    scenario: str | None = None
    scenario_id: str | None = None
    complete_to: datetime | None = None
    source_versions: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    between: tuple[float, float] | None = None


class RunClock:
    """A run's id and instants.

    Instants follow ``settings.clock`` where it is set, so that "served at" and "now" agree; durations are
    real. ``run`` sorts by real time: it breaks ties between runs under one clock.
    """

    def __init__(self, settings: Settings) -> None:
        self.run = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{os.urandom(3).hex()}"
        self.started_at = settings.now()
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    def at(self, seconds: float) -> datetime:
        """``started_at`` plus some seconds."""
        return self.started_at + timedelta(seconds=seconds)

    @property
    def now(self) -> datetime:
        """``started_at`` plus the time really passed."""
        return self.started_at + timedelta(seconds=self.seconds)


def write_runs(lake: Lake, clock: RunClock, rows: Sequence[JobRow]) -> None:
    """The rows stand in ``job_runs``, in one commit."""
    ended = clock.now
    values = [
        (
            row.job,
            clock.run,
            row.state,
            row.scenario,
            row.scenario_id,
            clock.at(row.between[0]) if row.between else clock.started_at,
            clock.at(row.between[1]) if row.between else ended,
            row.complete_to,
            json.dumps(dict(row.source_versions), sort_keys=True),
            json.dumps(dict(row.counts), sort_keys=True),
            row.message,
        )
        for row in rows
    ]
    lake.append("job_runs", lake.spark.createDataFrame(values, lake.schema("job_runs")).coalesce(1))


def consumed_versions(lake: Lake) -> dict[str, list[dict[str, str]]]:
    """``source_versions`` of succeeded rows by job, oldest first."""
    rows = lake.read("job_runs").where(F.col(S.SCENARIO).isNull() & (F.col(S.STATE) == SUCCEEDED))
    found: dict[str, list[dict[str, str]]] = {}
    for row in sorted(rows.select(S.RUN, S.JOB, S.SOURCE_VERSIONS).collect()):
        found.setdefault(row[S.JOB], []).append(json.loads(row[S.SOURCE_VERSIONS]))
    return found


def consumed(lake: Lake, recorded_runs: Sequence[Mapping[str, str]]) -> dict[str, Consumed]:
    """What is in the lake of each modality, by its digest: the batches that rows carry, and the record.

    Rows and their batch are committed together, so a run killed before its ``job_runs`` row is seen here.

    Args:
        recorded_runs: ``source_versions`` of the sequences job, oldest first.
    """
    batches: dict[str, list[Batch]] = {}
    for name in ("behaviour_sequences", "profile_rows"):
        for row in lake.read(name).select(S.MODALITY_DIGEST, S.BATCH).distinct().collect():
            batches.setdefault(row[S.MODALITY_DIGEST], []).append(Batch.parse(row[S.BATCH]))
    told: dict[str, str] = {}
    for versions in recorded_runs:
        told |= versions
    recorded = {key: Batch.parse(text) for key, text in told.items() if not key.startswith(FINGERPRINT)}
    return {
        key: Consumed(
            batches=[*batches.get(key, ()), *([recorded[key]] if key in recorded else ())],
            recorded=recorded.get(key),
            fingerprint=told.get(FINGERPRINT + key, ""),
        )
        for key in batches.keys() | recorded.keys()
    }


def newest_event(lake: Lake, modality_digest: str) -> datetime | None:
    """The newest event of the modality in the lake; None without one."""
    rows = lake.read("behaviour_sequences").where(F.col(S.MODALITY_DIGEST) == modality_digest)
    month = rows.agg(F.max(S.MONTH)).collect()[0][0]
    if month is None:
        return None
    newest = rows.where(F.col(S.MONTH) == month).agg(F.max(F.unix_micros(F.array_max(S.EVENT_AT)))).collect()
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=newest[0][0])
