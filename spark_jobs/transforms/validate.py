"""Source rows in one shape, each with the reason why it cannot be used, if any."""

from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import EntityRef, Modality
from qanchor_plugin.errors import InputDataError
from spark_jobs.identity import check_entities, key_column
from spark_jobs.sources import mapped_name

KEYS, FIELDS, FAULT = "keys", "fields", "fault"
REPAIRED, BLANK = "repaired_text", "blank_text"

REASONS = ("null_user", "unreadable_user", "null_event_at", "future_event_at")
"""Why a row cannot be used. Rows with repaired or blank text are used, and counted beside these."""

_AS_TIMESTAMP = ("timestamp", "timestamp_ntz", "date", "string")


def required_columns(modality: Modality, entities: Sequence[EntityRef]) -> tuple[str, ...]:
    """Every column (after field mapping) that the modality reads."""
    times = [mapped_name(modality.source, one) for one in _time_columns(modality)]
    keys = [entity.join_key for entity in entities]
    return tuple(dict.fromkeys((*keys, *times, *modality.columns)))


def normalised(
    rows: DataFrame, modality: Modality, entities: Sequence[EntityRef], *, latest: datetime
) -> DataFrame:
    """One row a source row: ``keys``, ``event_at``, ``known_at``, ``fields``, ``amounts``, ``fault`` and
    the flags ``repaired_text`` and ``blank_text``.

    ``known_at`` is the source's created column, else ``event_at`` (docs/decisions/0002). Text that is not
    UTF-8 gets U+FFFD for the bad bytes. Instants without a zone are read as UTC.

    Args:
        latest: an event after it is of the future and cannot be used.

    Raises:
        InputDataError: a time column is of no type that can be an instant.
    """
    check_entities(entities)
    types = dict(rows.dtypes)
    keys = [key_column(entity).alias(entity.join_key) for entity in entities]
    at = _event_at(modality, types)
    known = modality.source.known_at
    known_at = F.coalesce(_instant(mapped_name(modality.source, known), types), at) if known else at
    names = dict.fromkeys((*modality.text_columns, *modality.group_by))
    fields = [_readable(name, types).alias(name) for name in names]
    amounts = [
        F.coalesce(F.col(f"`{name}`").try_cast("double"), F.lit(float("nan"))) for name in modality.amounts
    ]
    shaped = rows.select(
        F.struct(*keys).alias(KEYS),
        at.alias(S.EVENT_AT),
        (F.lit(0).cast("timestamp") if modality.static else known_at).alias(S.KNOWN_AT),
        F.struct(*fields).alias(FIELDS),
        F.array(*amounts).cast("array<double>").alias(S.AMOUNTS),
        _any([_broken(name, types) for name in names]).alias(REPAIRED),
        _blank(modality).alias(BLANK),
        _any([_broken(entity.join_key, types) for entity in entities]).alias("__broken_key"),
    )
    fault = _fault(modality, entities, latest).alias(FAULT)
    kept = [name for name in shaped.columns if name != "__broken_key"]
    return shaped.select(*kept, fault)


def usable(shaped: DataFrame) -> DataFrame:
    """The rows without a fault."""
    return shaped.where(F.col(FAULT).isNull())


def count_rows(shaped: DataFrame) -> dict[str, int]:
    """``{"rows": …, reason: …, "repaired_text": …, "blank_text": …}``; reasons without rows are left out."""
    counts = [F.count(F.lit(1)).alias("rows")]
    counts += [F.count_if(F.col(FAULT) == reason).alias(reason) for reason in REASONS]
    counts += [F.count_if(F.col(FAULT).isNull() & F.col(flag)).alias(flag) for flag in (REPAIRED, BLANK)]
    found = shaped.agg(*counts).collect()[0].asDict()
    return {name: num for name, num in found.items() if num or name == "rows"}


def num_bad(counts: dict[str, int]) -> int:
    """How many of the counted rows cannot be used."""
    return sum(counts.get(reason, 0) for reason in REASONS)


def _time_columns(modality: Modality) -> list[str]:
    source = modality.source
    return [one for one in (source.event_at, "" if modality.static else source.known_at) if one]


def _event_at(modality: Modality, types: dict[str, str]) -> Column:
    if not modality.source.event_at:
        return F.lit(0).cast("timestamp")
    return _instant(mapped_name(modality.source, modality.source.event_at), types)


def _instant(name: str, types: dict[str, str]) -> Column:
    if types[name] not in _AS_TIMESTAMP:
        raise InputDataError(
            f"time column {name!r} has type {types[name]}; accepted are {list(_AS_TIMESTAMP)}. Cast it in "
            "the source's query."
        )
    return F.col(f"`{name}`").try_cast("timestamp")


def _readable(name: str, types: dict[str, str]) -> Column:
    column = F.col(f"`{name}`")
    return F.make_valid_utf8(column) if types[name] == "string" else column


def _broken(name: str, types: dict[str, str]) -> Column:
    if types[name] not in ("string", "binary"):
        return F.lit(False)
    text = F.col(f"`{name}`").cast("string")
    return F.coalesce(~F.is_valid_utf8(text), F.lit(False))


def _blank(modality: Modality) -> Column:
    """Whether the rendered text is empty: nothing in any named column, and no words around them."""
    if modality.text.format(**dict.fromkeys(modality.text_columns, _Nothing())).strip():
        return F.lit(False)
    texts = [F.coalesce(F.col(f"`{name}`").try_cast("string"), F.lit("")) for name in modality.text_columns]
    return F.trim(F.concat(*texts)) == ""


class _Nothing:
    def __format__(self, spec: str) -> str:
        return ""


def _any(flags: list[Column]) -> Column:
    found = F.lit(False)
    for flag in flags:
        found = found | flag
    return found


def _fault(modality: Modality, entities: Sequence[EntityRef], latest: datetime) -> Column:
    absent = _any([F.col(f"{KEYS}.`{entity.join_key}`").isNull() for entity in entities])
    reason = F.when(absent, "null_user").when(F.col("__broken_key"), "unreadable_user")
    if modality.static:
        return reason
    reason = reason.when(F.col(S.EVENT_AT).isNull(), "null_event_at")
    return reason.when(F.unix_micros(S.EVENT_AT) > round(latest.timestamp() * 1_000_000), "future_event_at")
