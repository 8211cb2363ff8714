"""What is stale in a lake, and why: sources that went on, other identities, age, failed runs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow.dataset as ds

from qanchor_plugin import schemas as S
from qanchor_plugin.backend.lake_reader import SUCCEEDED
from qanchor_plugin.cli.instants import human_duration
from qanchor_plugin.cli.lake_report import as_json, job_rows
from qanchor_plugin.declare import Declarations, Modality, Scenario
from qanchor_plugin.extras import require
from qanchor_plugin.identity import digest
from qanchor_plugin.prefix_store import LakeTables

_BATCH = re.compile(r"([0-9a-f]{12})\.(\d+)-(\d+)")


def source_report(tables: LakeTables, declared: Declarations) -> list[dict[str, Any]]:
    """Of each modality's source: the version that the lake has, the newest one, and why they differ."""
    consumed = _consumed(tables)
    modalities = {m.name: m for p in declared.profiles.values() for m in p.modalities}
    return [_source(one, consumed.get(one.sequence_digest)) for _, one in sorted(modalities.items())]


def stale_because(
    tables: LakeTables,
    declared: Declarations,
    scenario: Scenario,
    *,
    complete_to: datetime | None,
    now: datetime,
    sources: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Every reason why the scenario's stored answers are not what a refresh now would give; none: fresh."""
    reasons = []
    others = _of_other_identity(tables, scenario.name, declared.scenario_id(scenario))
    if complete_to is None:
        reasons.append("no run has completed its present version: feast materialize")
    elif scenario.ttl and now - complete_to > scenario.ttl:
        age, ttl = (human_duration(one.total_seconds()) for one in (now - complete_to, scenario.ttl))
        reasons.append(f"complete to {age} ago, and its ttl is {ttl}: feast materialize")
    if others and complete_to is None:
        reasons.append(
            f"{others} stored rows are of another identity (query, profile, engine or soft prompt changed "
            "since): they are not served as this version's"
        )
    names = {one.name for one in declared.profile_of(scenario).modalities}
    reasons += [one["behind"] for one in sources if one["modality"] in names and one["behind"]]
    return reasons


def _source(modality: Modality, consumed: tuple[str, int] | None) -> dict[str, Any]:
    source = modality.source
    told: dict[str, Any] = {
        "modality": modality.name,
        "source": source.name,
        "consumed": None if consumed is None else consumed[1],
        "newest": None,
        "behind": "",
    }
    found = _newest(source.path) if source.path and source.format == "delta" else None
    if found is None:
        return told
    table, told["newest"] = found
    if consumed is None:
        told["behind"] = f"source {source.name} was never read"
    elif consumed[0] != table:
        told["behind"] = f"source {source.name} is another table than the one that was read"
    elif told["newest"] > consumed[1]:
        num = told["newest"] - consumed[1]
        told["behind"] = f"source {source.name} is {num} versions ahead of the lake"
    return told


def _newest(path: str) -> tuple[str, int] | None:
    """Identity and newest version of a Delta source; None where it cannot be read without a JVM."""
    deltalake = require("deltalake", purpose="qanchor status")
    try:
        table = deltalake.DeltaTable(path, without_files=True)
    except (OSError, deltalake.exceptions.DeltaError):
        return None
    return digest("delta", str(table.metadata().id))[:12], table.version()


def _consumed(tables: LakeTables) -> dict[str, tuple[str, int]]:
    """By modality digest: the source table and the last version of it that is in the lake."""
    found: dict[str, tuple[str, int]] = {}
    for row in sorted(job_rows(tables), key=lambda one: one[S.RUN]):
        if row[S.STATE] == SUCCEEDED:
            for key, text in as_json(row[S.SOURCE_VERSIONS]).items():
                batch = _BATCH.fullmatch(str(text))
                if batch is not None:
                    found[key] = (batch.group(1), int(batch.group(3)))
    return found


def _of_other_identity(tables: LakeTables, scenario: str, identity: str) -> int:
    if not tables.exists("scenario_embeddings"):
        return 0
    where = (ds.field(S.SCENARIO) == scenario) & (ds.field(S.SCENARIO_ID) != identity)
    return tables.read("scenario_embeddings", columns=[S.SCENARIO_ID], where=where).num_rows


def failing_jobs(tables: LakeTables) -> list[str]:
    """Jobs whose newest run failed, with how often in a row and its message."""
    streak: Counter[str] = Counter()
    last: dict[str, str] = {}
    for row in sorted(job_rows(tables), key=lambda one: one[S.RUN]):
        if row[S.SCENARIO] is not None:
            continue
        streak[row[S.JOB]] = 0 if row[S.STATE] == SUCCEEDED else streak[row[S.JOB]] + 1
        last[row[S.JOB]] = row[S.MESSAGE] or ""
    return [f"{job}: failed {num} times in a row: {last[job]}" for job, num in streak.items() if num]
