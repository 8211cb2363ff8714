"""Pushed events that the batch has brought, or that it never brought in time, leave ``pushed_events``."""

import logging
from datetime import UTC, datetime, timedelta

import deltalake
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.prefix_store.pushed_table import TABLE, remove
from spark_jobs.tables import Lake
from spark_jobs.transforms.sequences import month_of

logger = logging.getLogger(__name__)

_IDENTITY = (S.MODALITY_DIGEST, S.USER, S.EVENT_AT, S.TEXT_ID, S.GROUPS, S.AMOUNTS)
_BROUGHT, _COPIES = "brought", "copies"


def catch_up(lake: Lake, settings: Settings) -> dict[str, int]:
    """Of the pushed events only those remain that the sequences lack and that are still waited for.

    A reader counts an event as often as the sequences have it or as one push has it, whichever is more: what
    leaves here changes no answer, but for the events given up. It is safe to run beside pushes.

    Returns:
        Rows: ``{"caught_up": …, "given_up": …, "waiting": …, "left": …}``, the last those that could not be
        removed this time. Empty where nothing was pushed.
    """
    if not lake.exists(TABLE) or not deltalake.DeltaTable(lake.path(TABLE)).file_uris():
        return {}
    pushed = lake.read(TABLE).persist()
    try:
        brought = _rows(_brought(lake, pushed))
        old = F.col(S.PUSHED_AT) < F.lit(datetime.now(UTC) - timedelta(days=settings.pushed_days))
        given_up = _rows(pushed.where(old)) - brought
        num_rows = pushed.count()
    finally:
        pushed.unpersist()
    if given_up:
        logger.warning(
            "%d pushed events were not brought by the batch within %d days and are given up; the first is %s",
            len(given_up), settings.pushed_days, min(given_up),
        )  # fmt: skip
    gone = sorted(brought | given_up)
    left = remove(lake.path(TABLE), gone) if gone else 0
    return {
        "caught_up": len(brought),
        "given_up": len(given_up),
        "waiting": num_rows - len(gone),
        "left": left,
    }


def _rows(frame: DataFrame) -> set[str]:
    return set(frame.select(S.PUSHED_ROW).toArrow()[S.PUSHED_ROW].to_pylist())


def _brought(lake: Lake, pushed: DataFrame) -> DataFrame:
    """``pushed_row`` of every event that the sequences have as often as any one push has it."""
    keyed = [_comparable(name).alias(name) for name in _IDENTITY]
    events = pushed.select(*keyed, S.BATCH, S.PUSHED_ROW)
    each = events.groupBy(*_IDENTITY, S.BATCH).agg(F.count_distinct(S.PUSHED_ROW).alias(_COPIES))
    wanted = each.groupBy(*_IDENTITY).agg(F.max(_COPIES).alias(_COPIES))
    have = _stored(lake, pushed).select(*keyed).groupBy(*_IDENTITY).agg(F.count(F.lit(1)).alias(_BROUGHT))
    full = wanted.join(have, on=list(_IDENTITY), how="inner").where(F.col(_BROUGHT) >= F.col(_COPIES))
    return events.join(full, on=list(_IDENTITY), how="left_semi").select(S.PUSHED_ROW)


def _stored(lake: Lake, pushed: DataFrame) -> DataFrame:
    """The stored events, one a row, of users, months and sequences that have pushed ones."""
    users = pushed.select(S.MODALITY_DIGEST, S.USER).distinct()
    months = [
        row[S.MONTH] for row in pushed.select(month_of(F.col(S.EVENT_AT)).alias(S.MONTH)).distinct().collect()
    ]
    arrays = (S.EVENT_AT, S.TEXT_ID, S.GROUPS, S.AMOUNTS)
    keys = [S.MODALITY_DIGEST, S.USER]
    rows = lake.read("behaviour_sequences").where(F.col(S.MONTH).isin(months))
    rows = rows.join(F.broadcast(users), on=keys, how="left_semi")
    events = rows.select(*keys, F.explode(F.arrays_zip(*arrays)).alias("event"))
    flat = events.select(*keys, *[F.col(f"event.{name}").alias(name) for name in arrays])
    tabular = lake.read("profile_rows").join(
        F.broadcast(users), on=[S.MODALITY_DIGEST, S.USER], how="left_semi"
    )
    single = tabular.select(
        S.MODALITY_DIGEST,
        S.USER,
        S.EVENT_AT,
        S.TEXT_ID,
        F.lit(b"").alias(S.GROUPS),
        F.array().cast("array<double>").alias(S.AMOUNTS),
    )
    return flat.unionByName(single)


def _comparable(name: str) -> Column:
    """The column; amounts as text, so that one NaN equals another and minus zero is zero."""
    if name != S.AMOUNTS:
        return F.col(name)
    return F.concat_ws(" ", F.transform(S.AMOUNTS, lambda one: (one + F.lit(0.0)).cast("string")))
