"""Sources to ``event_texts``, ``behaviour_sequences`` and ``profile_rows``: only what is new."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import EntityRef, Modality, Profile, Settings
from qanchor_plugin.errors import DeclarationError, InputDataError
from spark_jobs.change_rows import mark_everyone, table_rows, write_changed, write_compared, write_texts
from spark_jobs.progress import Progress, stage
from spark_jobs.source_changes import (
    ADDED,
    AFTER,
    CHANGE_TYPE,
    CHANGED,
    COMPARED,
    FINGERPRINT,
    INSERT,
    Consumed,
    Increment,
    increment,
)
from spark_jobs.sources import Batch, place
from spark_jobs.tables import Lake
from spark_jobs.transforms.forgotten import without_forgotten
from spark_jobs.transforms.validate import REASONS, count_rows, normalised, num_bad, required_columns, usable

FUTURE_SLACK = timedelta(days=1)
"""An event further than this past now cannot have happened: clocks err by less."""

Newest = Callable[[str], datetime | None]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One modality's new rows, read and counted but not yet written.

    Attributes:
        increment: what was read of the source.
        shaped: usable rows: all that are to be written; of a change feed, the inserted ones.
        changed: of a change feed, rows as they were before and after an update, and deleted ones; of a static
            source, the added rows.
        counts: of the rows read; ``changed_users`` is added when they are written.
        latest: events after it cannot be used.
    """

    modality: Modality
    entities: tuple[EntityRef, ...]
    increment: Increment
    shaped: DataFrame
    changed: DataFrame | None = None
    counts: dict[str, int]
    latest: datetime

    @property
    def batch(self) -> Batch:
        """The name of the rows that come of it."""
        return self.increment.batch

    @property
    def num_usable(self) -> int:
        """Rows that will be written, or compared."""
        return self.counts["rows"] - num_bad(self.counts)

    @property
    def table(self) -> str:
        """Where its rows stand."""
        return "behaviour_sequences" if self.modality.kind == "events" else "profile_rows"

    def told(self) -> dict[str, Any]:
        """What ``job_runs`` counts of it."""
        why = self.increment.why
        return {**self.counts, "read": self.increment.kind, **({"why": why} if why else {})}

    def versions(self) -> dict[str, str]:
        """What ``job_runs`` says was consumed."""
        key, print_ = self.modality.sequence_digest, self.increment.fingerprint
        return {key: str(self.batch), **({FINGERPRINT + key: print_} if print_ else {})}


def told_why(planned: Iterable[Planned]) -> str:
    """Which sources were not read as increments, and why; "" where all were."""
    return "; ".join(f"{one.modality.name}: {one.increment.why}" for one in planned if one.increment.why)


def plan(
    spark: SparkSession,
    settings: Settings,
    profiles: Iterable[Profile],
    consumed: Mapping[str, Consumed],
    *,
    full: bool = False,
    newest: Newest | None = None,
) -> list[Planned]:
    """Every modality of the profiles that has new rows; nothing is written.

    Args:
        consumed: what the lake has, by modality digest.
        newest: the newest event in the lake of a modality digest; without it, sources that are not Delta
            are compared from their first event on.

    Raises:
        InputDataError: a source or column is not there, or more than ``settings.max_bad_row_share`` of the
            new rows cannot be used; names all of them.
    """
    planned, faults = [], []
    latest = max(settings.now(), datetime.now(UTC)) + FUTURE_SLACK
    for modality, entities in _modalities(profiles):
        known = consumed.get(modality.sequence_digest, Consumed())
        since = partial(_since, settings, modality, newest)
        new = increment(spark, modality.source, known, full=full, since=since)
        if new is None:
            continue
        missing = _missing_columns(modality, entities, new.rows)
        if missing:
            faults.append(missing)
            continue
        kept = without_forgotten(new.rows, entities, settings.lake)
        one = _planned(modality, entities, new, kept, latest)
        planned.append(one)
        faults += _too_many_bad(one, settings.max_bad_row_share)
    if faults:
        raise InputDataError("\n".join(["Nothing was written.", *faults]))
    return planned


def write(lake: Lake, settings: Settings, planned: Planned, progress: Progress) -> int:
    """The modality's new texts, then its sequences, stand in the lake; how many texts were new.

    Texts come first: a run killed between the two leaves texts that no event names yet, never an event
    whose text is unknown.
    """
    modality = planned.modality
    with stage(lake.spark, progress, f"sequences of {modality.name}", planned.num_usable) as done:
        if planned.increment.kind == COMPARED:
            num_texts = write_compared(lake, settings, planned)
        elif planned.changed is not None:
            num_texts = write_changed(lake, settings, planned)
        else:
            num_texts = _write_rows(lake, settings, planned)
        done.add(planned.num_usable)
    planned.increment.rows.unpersist()
    return num_texts


def _write_rows(lake: Lake, settings: Settings, planned: Planned) -> int:
    num_texts = write_texts(lake, planned.shaped, planned.modality) if planned.num_usable else 0
    made = table_rows(planned, planned.shaped, settings.user_buckets)
    if planned.increment.replaces:
        mark_everyone(lake, planned)
        lake.replace(planned.table, made, where=f"{S.MODALITY_DIGEST} = '{planned.modality.sequence_digest}'")
    elif planned.num_usable:
        lake.append(planned.table, made)
    return num_texts


def _since(settings: Settings, modality: Modality, newest: Newest | None) -> datetime | None:
    """The start of the month of the look-back: months are what is replaced together."""
    if newest is None or modality.kind != "events":
        return None
    last = newest(modality.sequence_digest)
    if last is None:
        return None
    back = last - timedelta(days=settings.look_back_days)
    return back.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _planned(
    modality: Modality, entities: tuple[EntityRef, ...], new: Increment, kept: DataFrame, latest: datetime
) -> Planned:
    """``kept``: the increment's rows without those of forgotten users."""
    rows, changed = kept, None
    if new.kind == CHANGED:
        after = normalised(
            rows.where(F.col(CHANGE_TYPE).isin(INSERT, AFTER)), modality, entities, latest=latest
        )
        changed = normalised(rows.where(F.col(CHANGE_TYPE) != INSERT), modality, entities, latest=latest)
        counts = count_rows(after) | _change_counts(rows)
        rows = rows.where(F.col(CHANGE_TYPE) == INSERT)
    shaped = normalised(rows, modality, entities, latest=latest)
    if new.kind != CHANGED:
        counts = count_rows(shaped)
    shaped = usable(shaped)
    if modality.static and new.kind in (ADDED, CHANGED):  # one row a user: an added one replaces another
        changed = normalised(kept, modality, entities, latest=latest)
    return Planned(
        modality=modality,
        entities=entities,
        increment=new,
        shaped=shaped,
        changed=changed,
        counts=counts,
        latest=latest,
    )


def _change_counts(feed: DataFrame) -> dict[str, int]:
    """How many rows the feed says were updated and deleted."""
    kinds = {"updated": AFTER, "deleted": "delete"}
    counts = [F.count_if(F.col(CHANGE_TYPE) == kind).alias(name) for name, kind in kinds.items()]
    found = feed.agg(*counts).collect()[0].asDict()
    return {name: num for name, num in found.items() if num}


def _modalities(profiles: Iterable[Profile]) -> list[tuple[Modality, tuple[EntityRef, ...]]]:
    found: dict[str, tuple[Modality, tuple[EntityRef, ...]]] = {}
    for profile in profiles:
        for modality in profile.modalities:
            known = found.setdefault(modality.sequence_digest, (modality, profile.entities))
            if known[1] != profile.entities:
                raise DeclarationError(
                    f"modality {modality.name!r} is used with entities {[e.name for e in known[1]]} and, in "
                    f"profile {profile.name!r}, {[e.name for e in profile.entities]}. Give one of the two "
                    "another modality name."
                )
    return list(found.values())


def _missing_columns(modality: Modality, entities: Sequence[EntityRef], rows: DataFrame) -> str | None:
    missing = [name for name in required_columns(modality, entities) if name not in rows.columns]
    if not missing:
        return None
    return (
        f"modality {modality.name!r}: source {modality.source.name!r} ({place(modality.source)}) has no "
        f"column {missing}; it has {sorted(rows.columns)}. Mend the source or the declaration."
    )


def _too_many_bad(planned: Planned, accepted: float) -> list[str]:
    counts, bad = planned.counts, num_bad(planned.counts)
    if not bad or bad / counts["rows"] <= accepted:
        return []
    reasons = {name: num for name, num in counts.items() if name in REASONS}
    return [
        f"modality {planned.modality.name!r}: {bad} of {counts['rows']} new rows cannot be used ({reasons}), "
        f"a share of {bad / counts['rows']:.4f}; accepted is max_bad_row_share={accepted}. Mend the source, "
        "or raise qanchor: max_bad_row_share: in feature_store.yaml."
    ]
