"""Corrections of a source, in the lake: only the users' months that they touch are written anew."""

from typing import TYPE_CHECKING

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Modality, Settings
from spark_jobs.exchange import exchange
from spark_jobs.sources import mapped_name, read_source
from spark_jobs.tables import Lake
from spark_jobs.transforms.differences import UNITS, differing
from spark_jobs.transforms.forgotten import without_forgotten
from spark_jobs.transforms.render import not_in, rendered, texts
from spark_jobs.transforms.sequences import bucket_of, month_of, profile_rows, sequences
from spark_jobs.transforms.validate import KEYS, normalised, usable

if TYPE_CHECKING:
    from spark_jobs.build_sequences import Planned


def write_changed(lake: Lake, settings: Settings, planned: "Planned") -> int:
    """Inserted rows are in the lake, touched units are as the source has them now; how many texts were new.

    A touched unit (a user's month; of a tabular modality, the user) is read again from the source at the
    version that the batch ends with: doing it twice ends in the same rows.
    """
    assert planned.changed is not None  # the caller's dispatch
    gone = touched_units(planned).persist(StorageLevel.DISK_ONLY)
    shaped = _now_of_touched(lake, planned).persist(StorageLevel.DISK_ONLY)
    try:
        return _exchanged(
            lake, settings, planned, shaped, table_rows(planned, shaped, settings.user_buckets), gone
        )
    finally:
        gone.unpersist()
        shaped.unpersist()


def write_compared(lake: Lake, settings: Settings, planned: "Planned") -> int:
    """Units whose stored events are not those of the source are as the source has them now; new texts."""
    made = table_rows(planned, planned.shaped, settings.user_buckets).persist(StorageLevel.DISK_ONLY)
    gone = differing(made, _stored(lake, planned), planned.modality.kind).persist(StorageLevel.DISK_ONLY)
    rows = made.join(gone, on=list(UNITS[planned.modality.kind]), how="left_semi")
    try:
        return _exchanged(lake, settings, planned, planned.shaped, rows, gone)
    finally:
        gone.unpersist()
        made.unpersist()


def touched_units(planned: "Planned") -> DataFrame:
    """The units of which the change feed took or changed a row."""
    assert planned.changed is not None
    events = rendered(planned.changed, planned.modality, planned.entities).where(F.col(S.USER).isNotNull())
    month = month_of(F.col(S.EVENT_AT)).alias(S.MONTH)
    return events.select(S.USER, month).select(*UNITS[planned.modality.kind]).distinct()


def mark_everyone(lake: Lake, planned: "Planned") -> None:
    """``changed_users`` says (by a null user) that anybody's events of the modality may be other ones."""
    row = [(planned.modality.sequence_digest, None, 0, str(planned.batch))]
    lake.append("changed_users", lake.spark.createDataFrame(row, lake.schema("changed_users")).coalesce(1))


def compared_units(lake: Lake, settings: Settings, planned: "Planned") -> DataFrame:
    """The units whose stored events are not those of the source."""
    made = table_rows(planned, planned.shaped, settings.user_buckets)
    return differing(made, _stored(lake, planned), planned.modality.kind)


def table_rows(planned: "Planned", shaped: DataFrame, num_buckets: int) -> DataFrame:
    """Usable rows as rows of the modality's table."""
    make = sequences if planned.modality.kind == "events" else profile_rows
    events = rendered(shaped, planned.modality, planned.entities)
    rows = make(events, planned.modality, batch=str(planned.batch), num_buckets=num_buckets)
    folders = [S.MONTH, S.USER_BUCKET] if planned.modality.kind == "events" else [S.USER_BUCKET]
    return rows.repartition(*folders).sortWithinPartitions(S.USER)


def write_texts(lake: Lake, shaped: DataFrame, modality: Modality) -> int:
    """Every text of the rows is in ``event_texts``; how many were new."""
    new = new_texts(lake, shaped, modality).persist()
    try:
        num_new = new.count()
        if num_new:
            lake.append("event_texts", new)
    finally:
        new.unpersist()
    return num_new


def new_texts(lake: Lake, shaped: DataFrame, modality: Modality) -> DataFrame:
    """The rows' texts that the lake does not have."""
    return not_in(texts(shaped, modality), lake.read("event_texts"), S.TEXT_ID)


def _exchanged(
    lake: Lake, settings: Settings, planned: "Planned", shaped: DataFrame, rows: DataFrame, gone: DataFrame
) -> int:
    """First who is touched, then the texts, then the rows: each commit can stand without the next."""
    users = gone.select(S.USER).distinct()
    planned.counts["changed_users"] = users.count()
    if planned.counts["changed_users"]:
        lake.append("changed_users", _changed_users(users, planned, settings.user_buckets))
    num_texts = write_texts(lake, shaped, planned.modality)
    if planned.counts["changed_users"] or not rows.isEmpty():
        exchange(
            lake,
            planned.table,
            rows,
            gone=gone,
            keys=UNITS[planned.modality.kind],
            where=_where(planned, gone),
        )
    return num_texts


def _changed_users(users: DataFrame, planned: "Planned", num_buckets: int) -> DataFrame:
    return users.select(
        F.lit(planned.modality.sequence_digest).alias(S.MODALITY_DIGEST),
        S.USER,
        bucket_of(num_buckets).alias(S.USER_BUCKET),
        F.lit(str(planned.batch)).alias(S.BATCH),
    ).coalesce(1)


def _where(planned: "Planned", gone: DataFrame) -> str:
    """The modality, and the months that are touched: other partitions are not even read."""
    where = f"t.{S.MODALITY_DIGEST} = '{planned.modality.sequence_digest}'"
    if planned.modality.kind != "events":
        return where
    months = sorted(row[S.MONTH] for row in gone.select(S.MONTH).distinct().collect())
    return f"{where} AND t.{S.MONTH} IN ({', '.join(repr(month) for month in months) or 'NULL'})"


def _now_of_touched(lake: Lake, planned: "Planned") -> DataFrame:
    """The source's usable rows of touched units, and the inserted ones of all others."""
    assert planned.changed is not None
    modality, new = planned.modality, planned.increment
    unit = [KEYS, S.MONTH] if modality.kind == "events" else [KEYS]
    touched = _with_month(planned.changed).select(*unit).distinct()
    source = read_source(lake.spark, modality.source, version=new.version)
    if modality.kind == "events":
        source = _within(source, planned)
    source = without_forgotten(source, planned.entities, lake.folder)
    current = usable(normalised(source, modality, planned.entities, latest=planned.latest))
    again = _with_month(current).join(F.broadcast(touched), on=unit, how="left_semi")
    others = _with_month(planned.shaped).join(F.broadcast(touched), on=unit, how="left_anti")
    return again.unionByName(others).drop(S.MONTH)


def _within(source: DataFrame, planned: "Planned") -> DataFrame:
    """The source's rows between the first and the last changed instant's month: other files are not read."""
    assert planned.changed is not None
    at = F.col(S.EVENT_AT)
    first, last = planned.changed.agg(F.min(at), F.date_add(F.last_day(F.max(at)), 1)).collect()[0]
    if first is None:
        return source
    column = F.col(f"`{mapped_name(planned.modality.source, planned.modality.source.event_at)}`")
    instant = column.try_cast("timestamp")
    return source.where(
        (instant >= F.date_trunc("month", F.lit(first))) & (instant < F.lit(last).cast("timestamp"))
    )


def _with_month(shaped: DataFrame) -> DataFrame:
    return shaped.withColumn(S.MONTH, month_of(F.col(S.EVENT_AT)))


def _stored(lake: Lake, planned: "Planned") -> DataFrame:
    rows = lake.read(planned.table).where(F.col(S.MODALITY_DIGEST) == planned.modality.sequence_digest)
    since = planned.increment.since
    return rows if since is None else rows.where(F.col(S.MONTH) >= f"{since:%Y-%m}")
