"""Sources to ``event_texts``, ``behaviour_sequences`` and ``profile_rows``: only what is new."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyspark.sql import DataFrame, SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import EntityRef, Modality, Profile, Settings
from qanchor_plugin.errors import DeclarationError, InputDataError
from spark_jobs.progress import Progress, stage
from spark_jobs.sources import Batch, Increment, increment, place
from spark_jobs.tables import Lake
from spark_jobs.transforms.forgotten import without_forgotten
from spark_jobs.transforms.render import not_in, rendered, texts
from spark_jobs.transforms.sequences import profile_rows, sequences
from spark_jobs.transforms.validate import count_rows, normalised, num_bad, required_columns, usable

FUTURE_SLACK = timedelta(days=1)
"""An event further than this past now cannot have happened: clocks err by less."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One modality's new rows, read and counted but not yet written."""

    modality: Modality
    entities: tuple[EntityRef, ...]
    batch: Batch
    replaces: bool
    shaped: DataFrame
    counts: dict[str, int]

    @property
    def num_usable(self) -> int:
        """Rows that will be written."""
        return self.counts["rows"] - num_bad(self.counts)


def plan(
    spark: SparkSession,
    settings: Settings,
    profiles: Iterable[Profile],
    consumed: Mapping[str, Sequence[Batch]],
    *,
    full: bool = False,
) -> list[Planned]:
    """Every modality of the profiles that has new rows; nothing is written.

    Raises:
        InputDataError: a source or column is not there, or more than ``settings.max_bad_row_share`` of the
            new rows cannot be used; names all of them.
    """
    planned, faults = [], []
    for modality, entities in _modalities(profiles):
        new = _increment(spark, modality, consumed.get(modality.sequence_digest, ()), full=full)
        if new is None:
            continue
        missing = _missing_columns(modality, entities, new.rows)
        if missing:
            faults.append(missing)
            continue
        latest = max(settings.now(), datetime.now(UTC)) + FUTURE_SLACK
        kept = without_forgotten(new.rows, entities, settings.lake)
        shaped = normalised(kept, modality, entities, latest=latest)
        one = Planned(
            modality=modality,
            entities=entities,
            batch=new.batch,
            replaces=new.replaces,
            shaped=usable(shaped),
            counts=count_rows(shaped),
        )
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
        num_texts = _write_texts(lake, planned) if planned.num_usable else 0
        made = _rows(planned, settings.user_buckets)
        name = "behaviour_sequences" if modality.kind == "events" else "profile_rows"
        if planned.replaces:
            where = f"{S.MODALITY_DIGEST} = '{modality.sequence_digest}'"
            lake.replace(name, made, where=where)
        elif planned.num_usable:
            lake.append(name, made)
        done.add(planned.num_usable)
    return num_texts


def _rows(planned: Planned, num_buckets: int) -> DataFrame:
    make = sequences if planned.modality.kind == "events" else profile_rows
    events = rendered(planned.shaped, planned.modality, planned.entities)
    rows = make(events, planned.modality, batch=str(planned.batch), num_buckets=num_buckets)
    folders = [S.MONTH, S.USER_BUCKET] if planned.modality.kind == "events" else [S.USER_BUCKET]
    return rows.repartition(*folders).sortWithinPartitions(S.USER)


def _write_texts(lake: Lake, planned: Planned) -> int:
    new = not_in(texts(planned.shaped, planned.modality), lake.read("event_texts"), S.TEXT_ID)
    new = new.persist()
    try:
        num_new = new.count()
        if num_new:
            lake.append("event_texts", new)
    finally:
        new.unpersist()
    return num_new


def _increment(
    spark: SparkSession, modality: Modality, consumed: Sequence[Batch], *, full: bool
) -> Increment | None:
    new = increment(spark, modality.source, consumed, full=full)
    if new is not None and modality.static and not new.replaces and consumed:
        return increment(spark, modality.source, consumed, full=True)
    return new


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
    reasons = {name: num for name, num in counts.items() if name != "rows"}
    return [
        f"modality {planned.modality.name!r}: {bad} of {counts['rows']} new rows cannot be used ({reasons}), "
        f"a share of {bad / counts['rows']:.4f}; accepted is max_bad_row_share={accepted}. Mend the source, "
        "or raise qanchor: max_bad_row_share: in feature_store.yaml."
    ]
