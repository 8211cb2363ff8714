"""Rows that newer ones have replaced and that are old enough to go; a user's newest row always stays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from qanchor_plugin import schemas as S
from spark_jobs.table_files import TableFile, TableFiles


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Of each group the newest row stays, and every row not older than some instant.

    Attributes:
        table: whose rows.
        group: columns of a group.
        order: columns whose greatest values make the newest row.
        age: the column by which a row is old.
    """

    table: str
    group: tuple[str, ...]
    order: tuple[str, ...]
    age: str


PREFIXES = Rule(
    table="user_prefixes",
    group=(S.PROFILE, S.PREFIX_DIGEST, S.USER),
    order=(S.CUTOFF, S.BATCH),
    age=S.CUTOFF,
)
EMBEDDINGS = Rule(
    table="scenario_embeddings",
    group=(S.SCENARIO, S.SCENARIO_ID, S.USER),
    order=(S.CUTOFF, S.SERVED_AT, S.BATCH),
    age=S.SERVED_AT,
)


def retire(table: TableFiles, rule: Rule, *, before: datetime, dry_run: bool) -> int:
    """Rows replaced by newer ones and older than ``before`` are gone, in one commit; how many."""
    files = table.files()
    newest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for file in files:
        for row in _rows(table, file, rule):
            group, order = _key(row, rule.group), _key(row, rule.order)
            newest[group] = max(newest.get(group, order), order)
    going = [(file, _num_old(table, file, rule, newest, before)) for file in files]
    chosen = [file for file, num in going if num]
    if chosen and not dry_run:
        for partition in _by_partition(chosen):
            table.rewrite(partition, _keeper(rule, newest, before, partition[0].partition))
    return sum(num for _, num in going)


def _keeper(
    rule: Rule, newest: Mapping[Any, Any], before: datetime, partition: Mapping[str, str | None]
) -> Callable[[pa.Table], pa.Table]:
    def keep(rows: pa.Table) -> pa.Table:
        names = [name for name in _columns(rule) if name in rows.column_names]
        given = rows.select(names).to_pylist()
        old = [_is_old({**partition, **row}, rule, newest, before) for row in given]
        return rows.filter(pa.array([not one for one in old], pa.bool_()))

    return keep


def _num_old(
    table: TableFiles, file: TableFile, rule: Rule, newest: Mapping[Any, Any], before: datetime
) -> int:
    return sum(_is_old(row, rule, newest, before) for row in _rows(table, file, rule))


def _is_old(row: Mapping[str, Any], rule: Rule, newest: Mapping[Any, Any], before: datetime) -> bool:
    return bool(row[rule.age] < before and _key(row, rule.order) < newest[_key(row, rule.group)])


def _rows(table: TableFiles, file: TableFile, rule: Rule) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for part in table.shaped(file, _columns(rule)):
        found += [{**file.partition, **row} for row in part.to_pylist()]
    return found


def _columns(rule: Rule) -> list[str]:
    return list(dict.fromkeys((*rule.group, *rule.order, rule.age)))


def _key(row: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _by_partition(files: Sequence[TableFile]) -> list[list[TableFile]]:
    found: dict[str, list[TableFile]] = {}
    for file in files:
        found.setdefault(str(sorted(file.partition.items())), []).append(file)
    return list(found.values())
