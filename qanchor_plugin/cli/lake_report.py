"""What stands in a lake, read with delta-rs: tables, runs, watermarks, coverage."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from qanchor_plugin import schemas as S
from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.cli.instants import from_micros, iso
from qanchor_plugin.declare import Declarations, Profile, Scenario
from qanchor_plugin.prefix_store import LakeTables

FOR_EVER = timedelta(0)
USED_ALL_THE_SAME = ("repaired_text", "blank_text")
BAD_ROW_REASONS = ("null_user", "unreadable_user", "null_event_at", "future_event_at", *USED_ALL_THE_SAME)
"""The names under which the jobs count rows that they left out or mended (spark_jobs.transforms.validate)."""

_FROM_THE_START = re.compile(r"\.0-\d+$")


def table_report(tables: LakeTables) -> list[dict[str, Any]]:
    """One record a table of the lake: rows, bytes of the files in use, Delta version, newest commit."""
    from qanchor_plugin.extras import require

    deltalake = require("deltalake", purpose="qanchor status")
    found: list[dict[str, Any]] = []
    for name in S.TABLES:
        if not tables.exists(name):
            found.append({"table": name, "exists": False})
            continue
        table = deltalake.DeltaTable(tables.path(name))
        added = pa.table(table.get_add_actions(flatten=True))
        found.append(
            {
                "table": name,
                "exists": True,
                "rows": _rows(tables, name, added),
                "files": added.num_rows,
                "bytes": int(pc.sum(added["size_bytes"]).as_py() or 0),
                "version": table.version(),
                "committed_at": _committed_at(table),
            }
        )
    return found


def newest_runs(tables: LakeTables) -> list[dict[str, Any]]:
    """The newest row of each job, newest run first; rows that only mark a scenario's watermark aside."""
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(job_rows(tables), key=lambda one: one[S.RUN]):
        if row[S.SCENARIO] is None:
            newest[row[S.JOB]] = row
    ordered = sorted(newest.values(), key=lambda one: one[S.RUN], reverse=True)
    return [
        {
            "job": row[S.JOB],
            "run": row[S.RUN],
            "state": row[S.STATE],
            "started_at": iso(row[S.STARTED_AT]),
            "seconds": None
            if row[S.ENDED_AT] is None
            else (row[S.ENDED_AT] - row[S.STARTED_AT]).total_seconds(),
            "counts": as_json(row[S.COUNTS]),
            "message": row[S.MESSAGE] or "",
        }
        for row in ordered
    ]


def bad_rows(tables: LakeTables, declared: Declarations) -> dict[str, dict[str, int]]:
    """Source rows in the lake's making that were left out or mended: modality, then reason.

    A run that read a source from its first version counts anew; later ones add to it.
    """
    modalities = {m.sequence_digest: m.name for p in declared.profiles.values() for m in p.modalities}
    found: dict[str, Counter[str]] = {}
    for row in sorted(job_rows(tables), key=lambda one: one[S.RUN]):
        counts, versions = as_json(row[S.COUNTS]), as_json(row[S.SOURCE_VERSIONS])
        for digest, batch in versions.items():
            name = modalities.get(digest)
            if name is None or not isinstance(counts.get(name), Mapping):
                continue
            if _FROM_THE_START.search(str(batch)):
                found[name] = Counter()
            reasons = {reason: counts[name][reason] for reason in BAD_ROW_REASONS if reason in counts[name]}
            found.setdefault(name, Counter()).update(reasons)
    return {name: dict(reasons) for name, reasons in sorted(found.items()) if reasons}


def scenario_report(
    reader: LakeReader, declared: Declarations, scenario: Scenario, now: datetime
) -> dict[str, Any]:
    """How far and how widely a scenario is answered in the lake.

    ``covered`` counts users whose newest stored embedding is of the scenario's present identity,
    ``known`` the users that any modality of its profile has seen.
    """
    identity = declared.scenario_id(scenario)
    complete = complete_to(reader, declared, scenario)
    known = known_users(reader.tables, declared.profile_of(scenario))
    covered = len(_users_with(reader.tables, scenario.name, identity) & known)
    return {
        "scenario": scenario.name,
        "profile": scenario.profile,
        "complete_to": iso(complete),
        "age_seconds": None if complete is None else max(0.0, (now - complete).total_seconds()),
        "ttl_seconds": scenario.ttl.total_seconds(),
        "fresh": _is_fresh(complete, scenario.ttl, now),
        "covered": covered,
        "known": len(known),
        "coverage": covered / len(known) if known else None,
    }


def complete_to(reader: LakeReader, declared: Declarations, scenario: Scenario) -> datetime | None:
    """The instant that the scenario's present version is complete to; None before its first run."""
    return from_micros(reader.complete_to(scenario.name, declared.scenario_id(scenario)))


def known_users(tables: LakeTables, profile: Profile) -> set[bytes]:
    """Users with a stored row of any of the profile's modalities."""
    digests = [modality.sequence_digest for modality in profile.modalities]
    users: set[bytes] = set()
    for name in ("behaviour_sequences", "profile_rows"):
        if tables.exists(name):
            found = tables.read(name, columns=[S.USER], where=ds.field(S.MODALITY_DIGEST).isin(digests))
            users.update(pc.unique(found[S.USER]).to_pylist())
    return users


def point_in_time_notes(declared: Declarations) -> list[str]:
    """Which modalities are not, or not wholly, point-in-time, and what would mend it."""
    notes = []
    modalities = {m.name: m for profile in declared.profiles.values() for m in profile.modalities}
    for name, modality in sorted(modalities.items()):
        if modality.static:
            notes.append(
                f"{name}: static, so not point-in-time: its rows are visible at every instant. Give the "
                "source a timestamp and drop static=True if it changes with time."
            )
        elif not modality.source.known_at:
            notes.append(
                f"{name}: source {modality.source.name!r} has no created_timestamp_column: an event counts "
                "as known when it happened, so rows that arrived late are seen too early."
            )
    return notes


def _rows(tables: LakeTables, name: str, added: pa.Table) -> int:
    counts = added["num_records"] if "num_records" in added.column_names else None
    if counts is not None and counts.null_count == 0:
        return int(pc.sum(counts).as_py() or 0)
    first = S.TABLES[name].names[0]
    return tables.read(name, columns=[first]).num_rows


def _committed_at(table: Any) -> str | None:
    history = table.history(1)
    stamp = history[0].get("timestamp") if history else None
    return None if stamp is None else iso(datetime.fromtimestamp(stamp / 1000, UTC))


def job_rows(tables: LakeTables) -> list[dict[str, Any]]:
    """Every row of ``job_runs``; none where it was never written."""
    return tables.read("job_runs").to_pylist() if tables.exists("job_runs") else []


def _users_with(tables: LakeTables, scenario: str, identity: str) -> set[bytes]:
    if not tables.exists("scenario_embeddings"):
        return set()
    where = (ds.field(S.SCENARIO) == scenario) & (ds.field(S.SCENARIO_ID) == identity)
    found = tables.read("scenario_embeddings", columns=[S.USER], where=where)
    return set(pc.unique(found[S.USER]).to_pylist())


def _is_fresh(complete_to: datetime | None, ttl: timedelta, now: datetime) -> bool:
    return complete_to is not None and (ttl == FOR_EVER or now - complete_to <= ttl)


def as_json(text: str | None) -> dict[str, Any]:
    """What a JSON column holds; nothing for null."""
    return json.loads(text) if text else {}
