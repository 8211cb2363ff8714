"""What a refresh would do and why, with counts and an estimate; nothing is written."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Declarations, Profile, Settings
from spark_jobs.build_sequences import Planned, plan
from spark_jobs.change_rows import compared_units, new_texts, table_rows, touched_units
from spark_jobs.dirty import CORRECTED, EVERYONE, NEW_EVENTS, counted, dirty_users, last_checked, standing_at
from spark_jobs.due import NEW_PREFIX, wanted_answers
from spark_jobs.due import counted as answers_of
from spark_jobs.encode_events import missing_texts
from spark_jobs.engines import AskedGroup, asked_groups, chosen
from spark_jobs.estimate import estimated_seconds
from spark_jobs.failures import named_failures
from spark_jobs.refresh_steps import held
from spark_jobs.runs import consumed, consumed_versions, newest_event
from spark_jobs.session import in_utc
from spark_jobs.source_changes import ADDED, COMPARED, WHOLE
from spark_jobs.sources import Batch
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour


def explain(
    spark: SparkSession,
    settings: Settings,
    declarations: Declarations,
    *,
    end: datetime,
    scenarios: Sequence[str] | None = None,
    full: bool = False,
) -> dict[str, Any]:
    """What :func:`spark_jobs.refresh.refresh` with these arguments would do now.

    Users to look at and answers to make are upper bounds: a user is looked at before it is known whether
    what came is visible at ``end``.

    Returns:
        ``sources`` by modality: how it is read, why, which versions, rows, users, new texts · ``texts`` to
        encode by encoder · ``prefixes`` and ``embeddings`` by profile and engine, with users or answers by
        reason · ``estimated_seconds`` by job, None where no past run tells.

    Raises:
        As the refresh would, before its first write.
    """
    end = end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)
    lake = Lake(spark, settings)
    names = chosen(declarations, scenarios)
    with in_utc(spark), named_failures(f"explain, {lake.folder}"):
        profiles = {one.profile for one in names} if scenarios else set(declarations.profiles)
        asked = [declarations.profiles[name] for name in sorted(profiles)]
        groups = asked_groups(settings, declarations, names)
        return _Explained(lake, settings, end, full).told(asked, groups)


class _Explained:
    """One explanation, in the order of a run."""

    def __init__(self, lake: Lake, settings: Settings, end: datetime, full: bool) -> None:
        self.lake, self.settings, self.end, self.full = lake, settings, end, full
        self.end_us = round(end.timestamp() * 1_000_000)
        self.known = consumed_versions(lake)
        self.planned: list[Planned] = []
        self.standing: dict[str, Batch] = {}
        self.coming: dict[str, dict[str, DataFrame]] = {}

    def told(self, profiles: Sequence[Profile], groups: Sequence[AskedGroup]) -> dict[str, Any]:
        """The whole of it."""
        sources = self._sources(profiles)
        new = sum(one.get("new_texts", 0) for one in sources.values())
        encoders = {group.engine.encoder_id for group in groups}
        texts = {one: new + missing_texts(self.lake, one).count() for one in sorted(encoders)}
        looks, answers = {}, {}
        for group in groups:
            looks[group.name], answers[group.name] = self._group(group)
        for one in self.planned:
            one.increment.rows.unpersist()
        units = {
            "sequences": sum(one.counts["rows"] for one in self.planned),
            "vectors": sum(texts.values()),
            "prefixes": sum(one["users"] for one in looks.values()),
            "embeddings": sum(one["answers"] for one in answers.values()),
        }
        return {
            "end": self.end.isoformat(),
            "full": self.full,
            "sources": sources,
            "texts": texts,
            "prefixes": looks,
            "embeddings": answers,
            "estimated_seconds": estimated_seconds(self.lake, units),
        }

    def _sources(self, profiles: Sequence[Profile]) -> dict[str, dict[str, Any]]:
        lake = self.lake
        known = consumed(lake, self.known.get("sequences", ()))
        self.standing = standing_at(known)
        self.planned = plan(
            lake.spark, self.settings, profiles, known, full=self.full, newest=partial(newest_event, lake)
        )
        found: dict[str, dict[str, Any]] = {
            modality.name: {"read": "nothing"} for profile in profiles for modality in profile.modalities
        }
        for one in self.planned:
            users = self._coming(one)
            self.coming[one.modality.sequence_digest] = users
            rows = one.shaped if one.changed is None else one.shaped.unionByName(one.changed)
            found[one.modality.name] = {
                **one.told(),
                "batch": str(one.batch),
                "users": {reason: frame.count() for reason, frame in users.items()},
                "new_texts": new_texts(lake, rows, one.modality).count(),
            }
        return found

    def _coming(self, one: Planned) -> dict[str, DataFrame]:
        """Users that the planned rows are of, by reason."""
        if one.increment.kind == COMPARED:
            return {CORRECTED: compared_units(self.lake, self.settings, one).select(S.USER).distinct()}
        added = table_rows(one, one.shaped, self.settings.user_buckets).select(S.USER).distinct()
        if one.increment.kind in (WHOLE, ADDED) and one.changed is None:
            return {NEW_EVENTS: added}
        return {CORRECTED: touched_units(one).select(S.USER).distinct(), NEW_EVENTS: added}

    def _group(self, group: AskedGroup) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is to be looked at, and what to be answered, of one profile and engine."""
        planned = {one.modality.sequence_digest: one for one in self.planned}
        mine = [m.sequence_digest for m in group.profile.modalities if m.sequence_digest in planned]
        last = None if self.full else last_checked(self.known.get("prefixes", ()), group, self.end_us)
        coming = _together([self.coming[one] for one in mine])
        dirty = dirty_users(
            self.lake, group, end=self.end_us, checked=last, standing=self.standing, coming=coming
        )
        replaced = any(planned[one].increment.replaces for one in mine)
        users, why = (None, "a source is read whole and replaced") if replaced else (dirty.users, dirty.why)
        known = behaviour(self.lake, group.profile).select(S.USER)
        for frame in coming.values():
            known = known.unionByName(frame)
        with held(known.distinct() if users is None else users) as looked:
            reasons = {EVERYONE: looked.count()} if users is None else counted(looked)
            num = sum(reasons.values())
            stored = wanted_answers(self.lake, group, end=self.end_us, full=self.full)
            clean = answers_of(stored.join(looked, on=S.USER, how="left_anti"))
        answers = {
            query.scenario: ({NEW_PREFIX: num} if num else {}) | clean.get(query.scenario, {})
            for query in group.queries
        }
        total = sum(sum(one.values()) for one in answers.values())
        looks = {"users": num, "reasons": reasons} | ({"why": why} if why else {})
        return looks, {"answers": total, "scenarios": answers}


def _together(parts: Sequence[Mapping[str, DataFrame]]) -> dict[str, DataFrame]:
    """The users of several modalities by reason."""
    found: dict[str, DataFrame] = {}
    for part in parts:
        for reason, users in part.items():
            found[reason] = users if reason not in found else found[reason].unionByName(users)
    return found
