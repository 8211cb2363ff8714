"""The as-of join: every entity row sees the newest history row that stood at its instant.

Entity rows and history are laid into one table and sorted by key and time once; the newest history row is
carried forward to the entity rows behind it. There is no inequality join, no row id built of strings and no
self-join, so duplicates stay, composite keys are exact and one pass is enough. Where the entity rows are
few, their keys are sent to wherever the history is read, and no other key's rows are sorted at all.

All instants are compared as UTC microseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from operator import and_

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F
from pyspark.sql.types import MapType

_AT, _SIDE, _ORDER, _ENTITY, _FOUND = "__at", "__side", "__order", "__entity", "__found"
_HISTORY_SIDE, _ENTITY_SIDE = 0, 1

MOST_KEYS_SENT = 500_000
"""Entity rows whose keys are broadcast: some 20 MB of them."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The rows that a feature view's values come from.

    Attributes:
        rows: the source, in its own column names.
        keys: column of the entity rows -> column of ``rows``.
        key_types: column of the entity rows -> Spark type that both sides are read as; a key that is not
            there keeps the history's type.
        event_at: column of the instant of a row.
        created_at: column of the instant it was written, or "": breaks ties, newest first.
        features: name in the answer -> column of ``rows``.
        tie_columns: what decides between rows of one instant and one creation: the greatest values win.
        ttl: a row counts within [at - ttl, at]; zero is unlimited.
    """

    rows: DataFrame
    keys: Mapping[str, str]
    key_types: Mapping[str, str]
    event_at: str
    created_at: str
    features: Mapping[str, str]
    tie_columns: Sequence[str]
    ttl: timedelta


def quoted(name: str) -> Column:
    """The column of exactly this name, whatever characters it has."""
    return F.col("`" + name.replace("`", "``") + "`")


def micros(column: Column) -> Column:
    """UTC microseconds (bigint) of a timestamp, date or ISO text.

    Values without a zone are UTC if the session's zone is UTC while this expression is built.
    """
    return F.unix_micros(column.cast("timestamp"))


def join_as_of(
    rows: DataFrame, history: History, *, at: str, known_only: bool = False, asked_by: DataFrame | None = None
) -> DataFrame:
    """``rows`` with the history's features beside them: as many rows, null where nothing stood.

    Args:
        rows: entity rows; null-safe on keys, a null instant sees nothing.
        history: see :class:`History`.
        at: the column of ``rows`` with the instant.
        known_only: a history row counts only once it was written (``created_at`` <= at).
        asked_by: a frame with every key of ``rows``, cheap to compute and at most ``MOST_KEYS_SENT`` rows
            long: its keys are sent to where the history is read. None when there are too many.
    """
    keys = [f"__key_{position}" for position in range(len(history.keys))]
    late = known_only and bool(history.created_at)
    asking, past = _entity_side(rows, history, keys, at), _history_side(history, keys, late)
    if keys and asked_by is not None:
        past = _of_these_keys(past, asked_by.select(*_asked_keys(history, keys)), keys)
    newest = _newest_by_creation(history, keys) if late else _newest_by_time(history, keys)
    both = asking.unionByName(past).select(_SIDE, _AT, _ENTITY, newest.alias("__newest"))
    found = both.where(F.col(_SIDE) == _ENTITY_SIDE)
    event_at = F.col(f"__newest.{_ORDER}.event_at")
    fresh = F.lit(True) if not history.ttl else event_at >= F.col(_AT) - _micros_of(history.ttl)
    values = [
        F.when(fresh, F.col(f"__newest.{_FOUND}.f{position}")).alias(name)
        for position, name in enumerate(history.features)
    ]
    kept = [F.col(_ENTITY)["c" + str(position)].alias(name) for position, name in enumerate(rows.columns)]
    return found.select(*kept, *values)


def _newest_by_time(history: History, keys: Sequence[str]) -> Column:
    """The last history row before: rows are sorted as they were seen, so nothing has to be compared."""
    row = F.when(F.col(_SIDE) == _HISTORY_SIDE, F.struct(_FOUND, _ORDER))
    return F.last(row, ignorenulls=True).over(_before(keys, _AT, _SIDE, *_precedence(history)))


def _newest_by_creation(history: History, keys: Sequence[str]) -> Column:
    """The greatest history row before: one that was written late may be older than one known already."""
    greatest = F.when(F.col(_SIDE) == _HISTORY_SIDE, F.struct(f"{_ORDER}.event_at", *_precedence(history)))
    return F.max_by(F.struct(_FOUND, _ORDER), greatest).over(_before(keys, _AT, _SIDE))


def _precedence(history: History) -> list[Column]:
    """What decides between rows of one instant, least first: creation, then the tie columns."""
    wanted = list(history.features.values())
    ties = [
        F.col(f"{_ORDER}.t{position}")
        if column in _carried(history)
        else F.col(f"{_FOUND}.f{wanted.index(column)}")
        for position, column in enumerate(history.tie_columns)
    ]
    return [F.col(f"{_ORDER}.created_at"), *ties]


def _carried(history: History) -> set[str]:
    """Tie columns that travel for their order alone: those nobody asked for, and maps, which have none."""
    maps = {field.name for field in history.rows.schema if isinstance(field.dataType, MapType)}
    return {name for name in history.tie_columns if name in maps or name not in history.features.values()}


def _before(keys: Sequence[str], *order: str | Column) -> WindowSpec:
    window = Window.partitionBy(*keys).orderBy(*order)
    return window.rowsBetween(Window.unboundedPreceding, Window.currentRow)


def _of_these_keys(past: DataFrame, asking: DataFrame, keys: Sequence[str]) -> DataFrame:
    """The history rows of keys that anybody asks for, found where the history is read, before any shuffle."""
    wanted = F.broadcast(asking.select(*[F.col(key).alias(f"asked{key}") for key in keys]))
    same = reduce(and_, [F.col(key).eqNullSafe(F.col(f"asked{key}")) for key in keys])
    return past.join(wanted, on=same, how="left_semi")


def _entity_side(rows: DataFrame, history: History, keys: Sequence[str], at: str) -> DataFrame:
    entity = F.struct(*[quoted(name).alias(f"c{position}") for position, name in enumerate(rows.columns)])
    found, order = _history_columns(history)
    nothing = history.rows.select(found.alias(_FOUND), order.alias(_ORDER)).schema
    return rows.select(
        *_asked_keys(history, keys),
        micros(quoted(at)).alias(_AT),
        F.lit(_ENTITY_SIDE).alias(_SIDE),
        entity.alias(_ENTITY),
        F.lit(None).cast(nothing[_FOUND].dataType).alias(_FOUND),
        F.lit(None).cast(nothing[_ORDER].dataType).alias(_ORDER),
    )


def _asked_keys(history: History, keys: Sequence[str]) -> list[Column]:
    """The entity rows' keys, in the types that both sides are read as."""
    types = dict(history.rows.dtypes)
    return [
        quoted(name).try_cast(history.key_types.get(name) or types[history.keys[name]]).alias(key)
        for name, key in zip(history.keys, keys, strict=True)
    ]


def _history_side(history: History, keys: Sequence[str], late: bool) -> DataFrame:
    types = dict(history.rows.dtypes)
    named = [
        quoted(column).try_cast(history.key_types.get(name) or types[column]).alias(key)
        for (name, column), key in zip(history.keys.items(), keys, strict=True)
    ]
    seen_at = micros(quoted(history.event_at))
    if late:
        created = micros(quoted(history.created_at))
        seen_at = F.when(created.isNotNull(), F.greatest(seen_at, created))
    found, order = _history_columns(history)
    side = history.rows.select(
        *named,
        seen_at.alias(_AT),
        F.lit(_HISTORY_SIDE).alias(_SIDE),
        F.lit(None).alias(_ENTITY),
        found.alias(_FOUND),
        order.alias(_ORDER),
    )
    return side.where(F.col(_AT).isNotNull() & F.col(f"{_ORDER}.event_at").isNotNull())


def _history_columns(history: History) -> tuple[Column, Column]:
    """(what is carried to the answer, what else is needed to decide which row is the newest)."""
    found = F.struct(
        *[quoted(column).alias(f"f{position}") for position, column in enumerate(history.features.values())]
    )
    maps = {field.name for field in history.rows.schema if isinstance(field.dataType, MapType)}
    carried = _carried(history)
    ties = [
        (F.to_json(quoted(column)) if column in maps else quoted(column)).alias(f"t{position}")
        for position, column in enumerate(history.tie_columns)
        if column in carried
    ]
    created = micros(quoted(history.created_at)) if history.created_at else F.lit(None).cast("bigint")
    order = F.struct(micros(quoted(history.event_at)).alias("event_at"), created.alias("created_at"), *ties)
    return found, order


def _micros_of(length: timedelta) -> int:
    return length // timedelta(microseconds=1)
