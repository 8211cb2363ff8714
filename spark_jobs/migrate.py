"""A lake of an earlier layout becomes one of the present layout, a step at a time; no JVM."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.extras import require
from spark_jobs.layout import LAYOUT, refuse_newer, write_layout
from spark_jobs.ledger import lake_folder, record
from spark_jobs.lock import only_run
from spark_jobs.runs import SUCCEEDED, RunClock
from spark_jobs.table_files import LOG

JOB = "migrate"


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One step.

    Attributes:
        to: the layout after it; it starts from the one before.
        why: what is different.
        run: does it, given the lake's folder, and says what it did by table. Safe to repeat: a run that is
            killed starts the step again.
        rewrites: whether data files are written anew. Jobs take other steps by themselves.
    """

    to: int
    why: str
    run: Callable[[Path], Mapping[str, Any]]
    rewrites: bool = False


@dataclass(kw_only=True)
class MigrateReport:
    """From which layout to which, and what each step did by table."""

    before: int
    after: int
    steps: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def add_missing_columns(folder: Path) -> dict[str, list[str]]:
    """Every table that stands has every column of its schema, null in its rows; table to new columns."""
    deltalake = require("deltalake", purpose="Migrating the lake")
    added: dict[str, list[str]] = {}
    for name, schema in {**S.TABLES, S.PAIRS_TABLE: S.USERU_PAIRS}.items():
        if not (folder / name / LOG).is_dir():
            continue
        table: Any = deltalake.DeltaTable(str(folder / name))
        stands = set(pa.schema(table.schema()).names)
        missing = [one for one in schema if one.name not in stands]
        if missing:
            table.alter.add_columns(list(deltalake.Schema.from_arrow(pa.schema(missing)).fields))
            added[name] = [one.name for one in missing]
    return added


MIGRATIONS: tuple[Migration, ...] = (
    Migration(to=2, why="tables gain the columns that later releases added", run=add_missing_columns),
)


def migrate(
    settings: Settings, *, steps: Sequence[Migration] = MIGRATIONS, without_rewriting: bool = False
) -> MigrateReport:
    """The lake has the present layout; rows are as they were. A second call does nothing.

    Args:
        without_rewriting: stop before a step that writes data files anew, as jobs do that find an old lake.

    Raises:
        LakeError: the lake is of a newer layout, or cannot be written. JobBusyError: a run holds it.
    """
    folder, clock = lake_folder(settings.lake), RunClock(settings)
    before = refuse_newer(folder)
    report = MigrateReport(before=before, after=before)
    pending = [one for one in steps if one.to > before]
    if not pending:
        return report
    with only_run(folder, clock.run):
        for step in pending:
            if step.rewrites and without_rewriting:
                break
            report.steps[f"{step.to}: {step.why}"] = dict(step.run(folder))
            write_layout(folder, step.to)
            report.after = step.to
        record(
            folder, job=JOB, run=clock.run, state=SUCCEEDED, started_at=clock.started_at, ended_at=clock.now,
            counts={"before": before, "after": report.after, "steps": report.steps},
        )  # fmt: skip
    return report


def ready_for_jobs(settings: Settings) -> None:
    """The lake has the present layout: made so where that rewrites nothing.

    Raises:
        LakeError: it is newer, or older by a step that an operator must start.
    """
    from qanchor_plugin.errors import LakeError

    folder = lake_folder(settings.lake)
    layout = refuse_newer(folder)
    if layout < LAYOUT:
        layout = migrate(settings, without_rewriting=True).after
    if layout < LAYOUT:
        raise LakeError(
            f"lake {folder} has layout {layout} and this version works on {LAYOUT}: its files must be "
            "written anew, which takes time and room. Run: qanchor backup FOLDER, then qanchor migrate."
        )
