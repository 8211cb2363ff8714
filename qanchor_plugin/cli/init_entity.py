"""Whom the tables describe: the join key that they share."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from qanchor_plugin.cli.init_tables import SourceTable
from qanchor_plugin.errors import InputDataError

_USER_WORDS = (
    "user",
    "customer",
    "household",
    "client",
    "member",
    "account",
    "person",
    "patient",
    "visitor",
    "card",
)
_KEY_NAME = re.compile(r"(.*_)?(id|key|no|number|uuid)")


@dataclass(frozen=True, kw_only=True)
class EntityGuess:
    """One Feast entity.

    Attributes:
        name: ``household`` for ``household_id``.
        join_key: the column.
        value_type: ``INT64`` or ``STRING``.
        why: the reason, one sentence.
    """

    name: str
    join_key: str
    value_type: str
    why: str


def guess_entities(tables: Sequence[SourceTable], asked: Sequence[str]) -> tuple[EntityGuess, ...]:
    """The entities of all tables: those asked for, else the likeliest shared key.

    Raises:
        InputDataError: an asked column is not in every table or cannot be a key, or none is shared.
    """
    if asked:
        return tuple(_entity(column, tables, "as asked") for column in asked)
    shared = [c for c in tables[0].columns if all(c in table.columns for table in tables)]
    keys = [c for c in shared if _value_type(c, tables) and _score(c, tables) > 0]
    if not keys:
        listed = "; ".join(f"{table.given}: {table.columns}" for table in tables)
        raise InputDataError(
            f"no column looks like the user's key in every source ({listed}). Name it: --entity COLUMN "
            "(repeat it for a composite key)."
        )
    best = max(keys, key=lambda c: (_score(c, tables), -shared.index(c)))
    others = [c for c in keys if c != best]
    why = f"in every source, {max(t.distinct(best) for t in tables)} values"
    return (_entity(best, tables, why + (f"; also possible: {others}" if others else "")),)


def _entity(column: str, tables: Sequence[SourceTable], why: str) -> EntityGuess:
    without = [table.given for table in tables if column not in table.columns]
    if without:
        known = sorted(set.intersection(*(set(table.columns) for table in tables)))
        raise InputDataError(
            f"--entity {column}: {without} has no such column. Columns that all sources share: {known}."
        )
    value_type = _value_type(column, tables)
    if value_type is None:
        kinds = sorted({str(table.type_of(column)) for table in tables})
        raise InputDataError(
            f"--entity {column} is of type {kinds}; a key must be an integer in every source, or text in "
            "every source. Cast it in the table, or name another column."
        )
    name = re.sub(r"_(id|key|no|number|uuid)$", "", column)
    return EntityGuess(name=name, join_key=column, value_type=value_type, why=why)


def _value_type(column: str, tables: Sequence[SourceTable]) -> str | None:
    kinds = [table.type_of(column) for table in tables]
    if all(pa.types.is_integer(kind) for kind in kinds):
        return "INT64"
    if all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds):
        return "STRING"
    return None


def _score(column: str, tables: Sequence[SourceTable]) -> float:
    """How like a user's key a column is; 0 when it is not one."""
    name = column.lower()
    score = 0.0
    if _KEY_NAME.fullmatch(name):
        score += 1
    if any(word in name for word in _USER_WORDS):
        score += 2
    repeats = [table.sample.num_rows / max(table.distinct(column), 1) for table in tables]
    if score and max(repeats) > 1.05:
        score += 1
    return score
