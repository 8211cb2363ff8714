"""Measured figures: kept as rows in results/*.json, rendered into README and docs.

Run ``python -m benchmarks.results`` to render every ``<!-- results: TABLE -->`` block again, and with
``--check`` to fail when a block and its rows disagree.
"""

import json
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "results"
DEMO_OUTPUT = FOLDER / "demo_output.txt"
_DEMO = re.compile(r"<!-- demo output -->\n.*?<!-- /demo output -->", re.DOTALL)
MADE_BY = {"quality": "make evaluate", "world": "python -m benchmarks.world"}
"""What measures a table, by the start of its name; ``make bench`` measures all others."""
_BLOCK = re.compile(r"<!-- results: (?P<table>[\w-]+) -->\n.*?<!-- /results -->", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured figure.

    Attributes:
        table, row: where it stands.
        column: of a table with several figures a row; None is the plain list of figures.
        title: what such a table shows.
        value, unit: what was measured; no value where ``note`` says why.
        baseline, baseline_name: the peer's figure of the same run.
        ratio: how many times better than the baseline; above 1 is good.
        n, seeds: sample size and number of seeds.
        standard_error: of ``value``.
        spread: standard deviation of ``value`` over the seeds.
        signed: the value is a difference.
        note: words instead of a figure.
        command: what regenerates it.
        machine: where it was measured.
    """

    table: str
    row: str
    column: str | None = None
    title: str | None = None
    value: float | None = None
    unit: str
    baseline: float | None = None
    baseline_name: str | None = None
    ratio: float | None = None
    n: int | None = None
    seeds: int | None = None
    standard_error: float | None = None
    spread: float | None = None
    signed: bool | None = None
    note: str | None = None
    command: str
    machine: str


def machine() -> str:
    """The machine in a few words: architecture and processors that this process may use."""
    import os

    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def keep(name: str, rows: Iterable[Row]) -> Path:
    """The rows stand in ``results/<name>.json``; rows of tables not given are kept as they were."""
    rows = list(rows)
    path = FOLDER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    tables = {row.table for row in rows}
    others = [row for row in load(path) if row.table not in tables]
    lines = [
        json.dumps(
            {name: value for name, value in asdict(row).items() if value is not None}, ensure_ascii=False
        )
        for row in [*others, *rows]
    ]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return path


def as_run(command: str) -> str:
    """The command with the options that this process was given: a figure is of those alone."""
    return shlex.join([*command.split(), *sys.argv[1:]])


def load(path: Path) -> list[Row]:
    """The rows of one results file; none when it does not exist."""
    if not path.exists():
        return []
    return [Row(**row) for row in json.loads(path.read_text())]


def table_of(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; a column that no row uses is left out."""
    if any(row.column is not None for row in rows):
        return grid_of(rows)
    against = any(row.baseline is not None for row in rows)
    sampled = any(row.n is not None for row in rows)
    header = ["", "measured", *(["against", "ratio"] if against else []), *(["n"] if sampled else [])]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join(["---"] * len(header)) + " |"]
    for row in rows:
        cells = [row.row, _figure(row)]
        if against:
            cells += [_baseline(row), "" if row.ratio is None else f"{row.ratio:.2f}x"]
        if sampled:
            cells.append("" if row.n is None else f"{row.n:,}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", measured_by(rows)])


def grid_of(rows: Sequence[Row]) -> str:
    """Rows and columns of figures with their standard errors; below, what stands behind them."""
    columns = list(dict.fromkeys(row.column or "" for row in rows))
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_name.setdefault(row.row, {})[row.column or ""] = row
    lines = [f"{rows[0].title or rows[0].table}:", "", "| | " + " | ".join(columns) + " |"]
    lines.append("| --- |" + " ---: |" * len(columns))
    for name, cells in by_name.items():
        shown = [_cell(cells[column]) if column in cells else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", _behind(rows) + measured_by(rows)])


def measured_by(rows: Sequence[Row]) -> str:
    """The sentence that says with what and where."""
    commands = ", ".join(f"`{command}`" for command in sorted({row.command for row in rows}))
    return f"Measured by {commands} on {', '.join(sorted({row.machine for row in rows}))}."


def rendered(text: str, rows: Sequence[Row]) -> str:
    """``text`` with every results block filled from the rows; one without rows says how to measure it."""

    def fill(match: re.Match[str]) -> str:
        name = match["table"]
        chosen = [row for row in rows if row.table == name]
        command = next((made for part, made in MADE_BY.items() if name.startswith(part)), "make bench")
        body = table_of(chosen) if chosen else f"Not measured yet: run `{command}`."
        return f"<!-- results: {name} -->\n{body}\n<!-- /results -->"

    return _BLOCK.sub(fill, text)


def with_demo_output(text: str, output: str) -> str:
    """``text`` with its demo block showing what the demo printed."""
    body = "\n".join(line.rstrip() for line in output.strip("\n").splitlines())
    return _DEMO.sub(lambda _: f"<!-- demo output -->\n```\n{body}\n```\n<!-- /demo output -->", text)


def pages() -> list[Path]:
    """README and every page of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(arguments: Sequence[str]) -> int:
    """Pages are rendered; with ``--check`` none is written, and 1 is returned when one differs."""
    rows = [row for path in sorted(FOLDER.glob("*.json")) for row in load(path)]
    differing = []
    for page in pages():
        text = page.read_text()
        fresh = rendered(text, rows)
        if DEMO_OUTPUT.exists():
            fresh = with_demo_output(fresh, DEMO_OUTPUT.read_text())
        if fresh == text:
            continue
        differing.append(page.relative_to(ROOT))
        if "--check" not in arguments:
            page.write_text(fresh)
    for page in differing:
        print(("out of date: " if "--check" in arguments else "rendered: ") + str(page))
    return 1 if differing and "--check" in arguments else 0


def _cell(row: Row) -> str:
    if row.value is None:
        return row.note or ""
    value = f"{row.value:+.3f}" if row.signed else f"{row.value:.3f}"
    return value if row.standard_error is None else f"{value} ± {row.standard_error:.3f}"


def _behind(rows: Sequence[Row]) -> str:
    users = sorted({row.n for row in rows if row.n is not None})
    if not users:
        return ""
    text = f"n = {', '.join(f'{one:,}' for one in users)}; ± is one standard error over bootstrapped users"
    seeds = max((row.seeds or 0 for row in rows), default=0)
    if seeds:
        text += f"; trained rows are the mean of {seeds} {'seed' if seeds == 1 else 'seeds'}"
    spreads = [row.spread for row in rows if row.spread is not None]
    if spreads:
        text += f", whose figures differ by a standard deviation of at most {max(spreads):.3f}"
    return text + ". "


def _figure(row: Row) -> str:
    if row.value is None:
        return row.note or ""
    error = "" if row.standard_error is None else f" ± {row.standard_error:.3g}"
    return f"{row.value:.4g}{error} {row.unit}".strip()


def _baseline(row: Row) -> str:
    if row.baseline is None:
        return ""
    return f"{row.baseline:.4g} {row.unit} ({row.baseline_name})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
