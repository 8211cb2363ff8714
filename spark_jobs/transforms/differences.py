"""Which users' months differ between the stored rows and those that a source gives now."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S

_EVENT = (S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID, S.GROUPS, S.AMOUNTS)
_ROW = (S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID)
_NEW, _OLD = "new_state", "old_state"

UNITS = {"events": (S.USER, S.MONTH), "tabular": (S.USER,)}
"""What is replaced together, by the modality's kind."""


def differing(new: DataFrame, stored: DataFrame, kind: str) -> DataFrame:
    """The units (``UNITS[kind]``) whose events are not the same in both, batches and order aside.

    Args:
        new, stored: rows of ``behaviour_sequences`` (``events``) or ``profile_rows`` (``tabular``).
        kind: the modality's.
    """
    units = list(UNITS[kind])
    ours = _states(new, kind).withColumnRenamed("state", _NEW)
    theirs = _states(stored, kind).withColumnRenamed("state", _OLD)
    both = ours.join(theirs, on=units, how="full_outer")
    return both.where(~F.col(_NEW).eqNullSafe(F.col(_OLD))).select(*units)


def _states(rows: DataFrame, kind: str) -> DataFrame:
    """Of each unit: how many events it has, and the sum of their hashes (which no order changes)."""
    units = list(UNITS[kind])
    if kind == "events":
        zipped = F.explode(F.arrays_zip(*[F.col(name).alias(name) for name in _EVENT])).alias("event")
        each = rows.select(*units, zipped).select(*units, _hash([f"event.{name}" for name in _EVENT]))
    else:
        each = rows.select(*units, _hash(list(_ROW)))
    total = F.struct(F.count(F.lit(1)).alias("num"), F.sum("hash").alias("sum"))
    return each.groupBy(*units).agg(total.alias("state"))


def _hash(names: list[str]) -> Column:
    return F.xxhash64(*[F.col(name) for name in names]).cast("decimal(38,0)").alias("hash")
