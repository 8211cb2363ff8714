"""Rendered events as the rows of ``behaviour_sequences`` and ``profile_rows``."""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Modality
from qanchor_plugin.sequence.slice import STATIC_AT

_MICROS_PER_DAY = 86_400_000_000


def sequences(rendered: DataFrame, modality: Modality, *, batch: str, num_buckets: int) -> DataFrame:
    """One row a (user, month): its events as arrays in order of (event_at, text_id, groups, ...).

    Duplicate events are kept: nothing tells a repeated row from a repeated deed.

    Args:
        rendered: schema ``RENDERED``.
        batch: name of the rows, see ``sources.Batch``.
        num_buckets: ``settings.user_buckets``.
    """
    event = F.struct(S.EVENT_AT, S.TEXT_ID, S.GROUPS, S.AMOUNTS, S.KNOWN_AT)
    return (
        rendered.groupBy(S.USER, S.USER_KEY, month_of(F.col(S.EVENT_AT)).alias(S.MONTH))
        .agg(F.sort_array(F.collect_list(event)).alias("events"))
        .select(
            F.lit(modality.name).alias(S.MODALITY),
            F.lit(modality.sequence_digest).alias(S.MODALITY_DIGEST),
            S.USER,
            S.USER_KEY,
            bucket_of(num_buckets).alias(S.USER_BUCKET),
            S.MONTH,
            F.lit(batch).alias(S.BATCH),
            F.size("events").alias(S.NUM_EVENTS),
            *[
                F.col(f"events.{name}").alias(name)
                for name in (S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID, S.GROUPS, S.AMOUNTS)
            ],
        )
    )


def profile_rows(rendered: DataFrame, modality: Modality, *, batch: str, num_buckets: int) -> DataFrame:
    """One row a source row; of a static source the newest of each user, at ``STATIC_AT``."""
    rows = _newest(rendered) if modality.static else rendered
    never = F.timestamp_micros(F.lit(STATIC_AT))
    return rows.select(
        F.lit(modality.name).alias(S.MODALITY),
        F.lit(modality.sequence_digest).alias(S.MODALITY_DIGEST),
        S.USER,
        S.USER_KEY,
        bucket_of(num_buckets).alias(S.USER_BUCKET),
        F.lit(batch).alias(S.BATCH),
        (never if modality.static else F.col(S.EVENT_AT)).alias(S.EVENT_AT),
        (never if modality.static else F.col(S.KNOWN_AT)).alias(S.KNOWN_AT),
        S.TEXT_ID,
    )


def month_of(instant: Column) -> Column:
    """``2017-03``, the month in UTC whatever the session's time zone."""
    day = F.floor(F.unix_micros(instant) / F.lit(_MICROS_PER_DAY)).cast("int")
    date = F.date_from_unix_date(day)
    return F.concat_ws(
        "-", F.lpad(F.year(date).cast("string"), 4, "0"), F.lpad(F.month(date).cast("string"), 2, "0")
    )


def bucket_of(num_buckets: int) -> Column:
    """The user's partition; equals ``qanchor_plugin.identity.user_bucket``."""
    return (F.crc32(S.USER) % num_buckets).cast("int")


def _newest(rendered: DataFrame) -> DataFrame:
    order = Window.partitionBy(S.USER).orderBy(F.col(S.EVENT_AT).desc_nulls_last(), F.col(S.TEXT_ID).desc())
    return rendered.withColumn("__rank", F.row_number().over(order)).where("__rank = 1").drop("__rank")
