"""Tables as rows of results/quality.json, from which README and docs are rendered."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from benchmarks.results import Row, keep, machine
from qanchor_plugin.evaluation.report.tables import Figure, Table

RESULTS = "quality"
UNIT = ""
DIGITS = 5


def keep_tables(tables: Iterable[Table]) -> None:
    """The tables stand in results/quality.json; others there stay as they were."""
    where = machine()
    keep(RESULTS, [row for table in tables for row in rows_of(table, where)])


def rows_of(table: Table, where: str) -> Iterator[Row]:
    """A row a figure; a cell of words, but for an empty one, is a note."""
    for name, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            if cell == "":
                continue
            row = Row(
                table=table.name,
                title=table.title,
                row=name,
                column=column,
                unit=UNIT,
                command=table.command,
                machine=where,
                signed=table.signed or None,
            )
            if isinstance(cell, Figure):
                yield replace(
                    row,
                    value=round(cell.value, DIGITS),
                    standard_error=round(cell.standard_error, DIGITS),
                    spread=None if cell.spread is None else round(cell.spread, DIGITS),
                    n=cell.num_users,
                    seeds=cell.num_seeds or None,
                )
            else:
                yield replace(row, note=cell)
