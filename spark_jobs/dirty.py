"""Whose prefix may be another at the end: the users that a refresh looks at, each with the reason."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.identity import digest
from spark_jobs.build_prefixes import newest_prefixes
from spark_jobs.engines import AskedGroup
from spark_jobs.source_changes import Consumed
from spark_jobs.sources import Batch
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour

REASON = "reason"
CORRECTED, NEW_EVENTS, TIME, NO_PREFIX = "corrected", "new_events", "time_passed", "no_prefix"
EVERYONE = "everyone"
"""Events were changed or taken · events came · the window or a known instant passed · none was built yet ·
nobody can be left out."""

CHECKED = "checked/"
"""Before a group's name in ``source_versions`` of the prefixes job: what that run had looked at."""

Standing = Mapping[str, Batch]
"""By modality digest: the source table that the lake stands at, to its last version."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """That every user's newest prefix was right at an end.

    Attributes:
        of: digest of the profile and of what shapes the engine's prefixes.
        end: microseconds since 1970 UTC.
        at: by modality digest, the source batch that the lake stood at.
    """

    of: str
    end: int
    at: Mapping[str, str]

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Dirty:
    """The users to look at.

    Attributes:
        users: ``user`` and ``reason``, one row each; None is everyone.
        why: why it is everyone; "" when it is not.
    """

    users: DataFrame | None
    why: str = ""


def checked_now(group: AskedGroup, end: int, standing: Standing) -> Checked:
    """The record of a run that has looked at everyone it had to."""
    digests = [one.sequence_digest for one in group.profile.modalities]
    return Checked(of=_of(group), end=end, at={one: str(standing[one]) for one in digests if one in standing})


def last_checked(recorded_runs: Sequence[Mapping[str, str]], group: AskedGroup, end: int) -> Checked | None:
    """The record of the latest end, not after ``end``, that was checked of this profile and engine."""
    found = [
        Checked(**json.loads(runs[CHECKED + group.name]))
        for runs in recorded_runs
        if CHECKED + group.name in runs
    ]
    mine = [one for one in found if one.of == _of(group) and one.end <= end]
    return max(reversed(mine), key=lambda one: one.end, default=None)


def standing_at(consumed: Mapping[str, Consumed]) -> dict[str, Batch]:
    """What the lake stands at, modality by modality."""
    return {modality: batch for modality, one in consumed.items() if (batch := one.standing) is not None}


def dirty_users(
    lake: Lake,
    group: AskedGroup,
    *,
    end: int,
    checked: Checked | None,
    standing: Standing,
    coming: Mapping[str, DataFrame] | None = None,
) -> Dirty:
    """Everyone whose prefix at ``end`` may not be the newest stored one.

    Args:
        end: microseconds since 1970 UTC.
        checked: the last look; None looks at everyone.
        standing: what the lake stands at now.
        coming: users by reason, of rows that are planned but not in the lake yet.
    """
    if checked is None:
        return Dirty(users=None, why="this profile and engine were never looked at up to an earlier end")
    before = {modality: Batch.parse(text) for modality, text in checked.at.items()}
    if any(_is_another(before[one], standing.get(one)) for one in before):
        return Dirty(users=None, why="a source is another table, or at an earlier version, than it was")
    corrected = _of_new_batches(lake, "changed_users", group, before)
    if not corrected.where(F.col(S.USER).isNull()).isEmpty():
        return Dirty(users=None, why="a source was read whole and replaced")
    came = [_of_new_batches(lake, name, group, before) for name in ("behaviour_sequences", "profile_rows")]
    prefixes = newest_prefixes(lake, group, end=end).select(S.USER, S.NEXT_CHANGE_AT)
    due = F.col(S.NEXT_CHANGE_AT).isNull() | (F.unix_micros(S.NEXT_CHANGE_AT) <= end)
    known = behaviour(lake, group.profile).select(S.USER).distinct()
    parts = [
        (CORRECTED, corrected),
        (NEW_EVENTS, came[0].unionByName(came[1])),
        (TIME, prefixes.where(due).select(S.USER)),
        (NO_PREFIX, known.join(prefixes, on=S.USER, how="left_anti")),
    ]
    kept = _first_reason(parts).join(known, on=S.USER, how="left_semi")
    return Dirty(users=_first_reason([*(coming or {}).items(), *_by_reason(kept, parts)]) if coming else kept)


def counted(users: DataFrame) -> dict[str, int]:
    """How many users there are of each reason."""
    return {row[REASON]: row["count"] for row in users.groupBy(REASON).count().collect()}


def _by_reason(users: DataFrame, parts: Sequence[tuple[str, DataFrame]]) -> list[tuple[str, DataFrame]]:
    return [(reason, users.where(F.col(REASON) == reason).select(S.USER)) for reason, _ in parts]


def _first_reason(parts: Sequence[tuple[str, DataFrame]]) -> DataFrame:
    """Each user once, with the first of the reasons that apply."""
    union: DataFrame | None = None
    for number, (reason, users) in enumerate(parts):
        ranked = users.select(
            S.USER, F.struct(F.lit(number).alias("rank"), F.lit(reason).alias(REASON)).alias("one")
        )
        union = ranked if union is None else union.unionByName(ranked)
    assert union is not None  # parts is never empty
    return union.groupBy(S.USER).agg(F.min("one").alias("one")).select(S.USER, f"one.{REASON}")


def _of_new_batches(lake: Lake, name: str, group: AskedGroup, before: Standing) -> DataFrame:
    """Users of the table's rows whose batch the last look had not seen."""
    digests = [one.sequence_digest for one in group.profile.modalities]
    rows = lake.read(name).where(F.col(S.MODALITY_DIGEST).isin(digests))
    condition: Column = F.lit(False)
    for row in rows.select(S.MODALITY_DIGEST, S.BATCH).distinct().collect():
        if _is_new(Batch.parse(row[S.BATCH]), before.get(row[S.MODALITY_DIGEST])):
            same = (F.col(S.MODALITY_DIGEST) == row[S.MODALITY_DIGEST]) & (F.col(S.BATCH) == row[S.BATCH])
            condition = condition | same
    return rows.where(condition).select(S.USER).distinct()


def _is_new(batch: Batch, before: Batch | None) -> bool:
    """Whether a batch came after ``before``; one of another table is older, or everyone is looked at."""
    return before is None or (batch.table == before.table and batch.last > before.last)


def _is_another(before: Batch, now: Batch | None) -> bool:
    return now is not None and (now.table != before.table or now.last < before.last)


def _of(group: AskedGroup) -> str:
    parts: list[Any] = [group.profile.digest, group.engine.prefix_digest]
    return digest("checked", *parts)
