"""The lake kept small: replaced rows retired, small files folded, old files vacuumed; one job, no JVM."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import InputDataError, LakeError
from qanchor_plugin.extras import require
from spark_jobs.fold_rows import folded
from spark_jobs.ledger import lake_folder, record, tables_of, undisturbed
from spark_jobs.lock import only_run
from spark_jobs.retention import EMBEDDINGS, PREFIXES, Rule, retire
from spark_jobs.runs import FAILED, SUCCEEDED, RunClock
from spark_jobs.table_files import TableFile, TableFiles

JOB = "maintain"


@dataclass(frozen=True, kw_only=True)
class MaintainPlan:
    """What a run may remove.

    Attributes:
        keep_files: days that replaced files stay, for readers of earlier versions (1 or more).
        keep_prefixes: days that prefixes stay which newer ones have replaced; None keeps them.
        keep_embeddings: days that embeddings stay which newer ones have replaced; None keeps them: they are
            the history of ``as_served``.
        min_files: a partition with fewer small files than this is left as it is (2 or more).
        file_bytes: files of this size are large enough, and folded ones grow no larger.
        dry_run: only count.
    """

    keep_files: float = 7
    keep_prefixes: float | None = 30
    keep_embeddings: float | None = None
    min_files: int = 4
    file_bytes: int = 64 << 20
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.keep_files < 1:
            raise InputDataError(
                f"keep_files is {self.keep_files} days; accepted is 1 or more, for a reader may still be on "
                "an older version. qanchor forget removes a user's files at once."
            )
        if self.min_files < 2 or self.file_bytes < 1:
            raise InputDataError(
                f"min_files is {self.min_files} and file_bytes {self.file_bytes}; accepted are 2 or more and "
                "1 or more."
            )


@dataclass(kw_only=True)
class MaintainReport:
    """What a run did, or would do.

    Attributes:
        run: its id.
        dry_run: whether it only counted.
        seconds: how long it took.
        tables: by table: rows retired, files before and after folding, files vacuumed.
    """

    run: str
    dry_run: bool
    seconds: float = 0.0
    tables: dict[str, dict[str, int]] = field(default_factory=dict)


def maintain(settings: Settings, plan: MaintainPlan | None = None) -> MaintainReport:
    """No table of the lake has more small files, replaced rows or unused files than the plan allows.

    Readers see the same rows at every commit; readers of versions younger than ``keep_files`` days read on.

    Raises:
        JobBusyError: a refresh or another run holds the lake. LakeError: a table cannot be read or written.
    """
    plan = plan or MaintainPlan()
    folder, clock = lake_folder(settings.lake), RunClock(settings)
    report = MaintainReport(run=clock.run, dry_run=plan.dry_run)
    with only_run(folder, clock.run):
        fault = ""
        try:
            for name, table in tables_of(folder).items():
                with undisturbed(table):
                    report.tables[name] = _one(name, table, settings, plan)
        except LakeError as error:
            fault = f"{type(error).__name__}: {error}"
            raise
        finally:
            report.seconds = round(clock.seconds, 3)
            if not plan.dry_run:
                record(
                    folder, job=JOB, run=clock.run, state=FAILED if fault else SUCCEEDED, message=fault,
                    started_at=clock.started_at, ended_at=clock.now, counts=report.tables,
                )  # fmt: skip
    return report


def _one(name: str, table: TableFiles, settings: Settings, plan: MaintainPlan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for rule, days in ((PREFIXES, plan.keep_prefixes), (EMBEDDINGS, plan.keep_embeddings)):
        if rule.table == name and days is not None:
            counts["rows_retired"] = _retired(table, rule, settings, days, plan.dry_run)
    counts["files_before"] = len(table.files())
    saved = _folded(name, table, plan)
    counts["files_after"] = counts["files_before"] - saved if plan.dry_run else len(table.files())
    counts["files_vacuumed"] = table.vacuum(days=plan.keep_files, dry_run=plan.dry_run)
    if not plan.dry_run:
        table.checkpoint()
    return counts


def _retired(table: TableFiles, rule: Rule, settings: Settings, days: float, dry_run: bool) -> int:
    return retire(table, rule, before=settings.now() - timedelta(days=days), dry_run=dry_run)


def _folded(name: str, table: TableFiles, plan: MaintainPlan) -> int:
    """Small files of a partition are fewer; by how many."""
    order = next((one for one in (S.USER, S.TEXT_ID, S.RUN) if one in table.schema.names), None)
    change = folded if name == "behaviour_sequences" else None
    saved = 0
    for group in _bins(table.files(), plan):
        saved += len(group) - 1
        if not plan.dry_run:
            table.fold(group, [order] if order else [], change)
    return saved


def _bins(files: Sequence[TableFile], plan: MaintainPlan) -> list[list[TableFile]]:
    """Small files of one partition that make one file together, in the order of their names."""
    small: dict[str, list[TableFile]] = {}
    for file in files:
        if file.num_bytes < plan.file_bytes:
            small.setdefault(str(sorted(file.partition.items())), []).append(file)
    found: list[list[TableFile]] = []
    for group in small.values():
        if len(group) < plan.min_files:
            continue
        bins: list[list[TableFile]] = [[]]
        for file in group:
            if bins[-1] and sum(one.num_bytes for one in bins[-1]) + file.num_bytes > plan.file_bytes:
                bins.append([])
            bins[-1].append(file)
        found += [one for one in bins if len(one) > 1]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m spark_jobs.maintain --settings s.json [--dry-run]``; prints the report as JSON."""
    require("deltalake", purpose="Maintaining the lake")
    parser = argparse.ArgumentParser(prog="spark_jobs.maintain", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args(arguments)
    body: dict[str, Any] = json.loads(given.settings.read_text())
    settings = Settings.from_mapping(body, repo_path=given.settings.parent.resolve())
    print(json.dumps(asdict(maintain(settings, MaintainPlan(dry_run=given.dry_run))), indent=2))


if __name__ == "__main__":
    main()
