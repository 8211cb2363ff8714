"""One HTML page, complete in itself: tables, pictures as base64, and the commands that made them."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.report.tables import Cell, Figure, Table

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; margin: .6rem 0; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
td small { color: #777; display: block }
figure { margin: 1rem 0 } figcaption { color: #555 }
code { background: #f3f3f3; padding: .1rem .3rem } img { max-width: 100% } div.wide { overflow-x: auto }
"""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG file and what it shows."""

    path: Path
    caption: str


def write_report(
    path: Path,
    title: str,
    *,
    notes: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[Picture] = (),
) -> Path:
    """The page stands in ``path``; it loads nothing from anywhere.

    Raises:
        InputDataError: the file cannot be written, or a picture cannot be read.
    """
    commands = list(dict.fromkeys(table.command for table in tables))
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>',
        f"<h1>{escape(title)}</h1>",
        *[f"<p>{escape(note)}</p>" for note in notes],
        *[table_html(table) for table in tables],
        *[_picture_html(picture) for picture in pictures],
        "<h2>Made by</h2>",
        *[f"<p><code>{escape(command)}</code></p>" for command in commands],
        "</html>",
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(parts) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputDataError(
            f"the report {str(path)!r} cannot be written: {error}. Name another file."
        ) from error
    return path


def table_html(table: Table) -> str:
    """The table with its title; each cell holds value, standard error, and spread over seeds if any."""
    head = "".join(f"<th>{escape(column)}</th>" for column in ("", *table.columns))
    rows = "".join(
        f"<tr><td>{escape(name)}</td>" + "".join(_cell_html(cell, table.signed) for cell in cells) + "</tr>"
        for name, cells in table.rows
    )
    return (
        f'<h2 id="{escape(table.name)}">{escape(table.title)}</h2><p>{escape(behind(table))}</p>'
        f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'
    )


def behind(table: Table) -> str:
    """How many users and seeds stand behind the table's figures, and what the numbers beside them are."""
    figures = [cell for _, cells in table.rows for cell in cells if isinstance(cell, Figure)]
    if not figures:
        return "No figure yet."
    users = sorted({one.num_users for one in figures})
    seeds = max(one.num_seeds for one in figures)
    shown = ", ".join(f"{one:,}" for one in users)
    text = f"n = {shown}; ± is the standard error over bootstrapped users"
    if seeds:
        text += f"; trained rows are the mean of {seeds} {'seed' if seeds == 1 else 'seeds'}"
    return text + (", with the standard deviation over seeds." if seeds > 1 else ".")


def _cell_html(cell: Cell, signed: bool) -> str:
    if isinstance(cell, str):
        return f"<td><small>{escape(cell)}</small></td>"
    value = f"{cell.value:+.3f}" if signed else f"{cell.value:.3f}"
    seeds = "" if cell.spread is None else f", seeds ± {cell.spread:.3f}"
    return f"<td>{value}<small>± {cell.standard_error:.3f}{seeds}</small></td>"


def _picture_html(picture: Picture) -> str:
    try:
        body = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    except OSError as error:
        raise InputDataError(f"the picture {picture.path} cannot be read: {error}. Draw it again.") from error
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{body}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
