"""The whole refresh: sequences, texts, vectors, prefixes, embeddings, and what was done."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.errors import InputDataError
from spark_jobs.engines import asked_groups, chosen
from spark_jobs.lock import only_run
from spark_jobs.progress import Progress, default_progress
from spark_jobs.refresh_steps import RefreshReport, Run
from spark_jobs.runs import RunClock
from spark_jobs.session import get_session, in_utc
from spark_jobs.tables import Lake


def refresh(
    spark: SparkSession,
    settings: Settings,
    declarations: Declarations,
    *,
    end: datetime,
    scenarios: Sequence[str] | None = None,
    full: bool = False,
    progress: Progress | None = None,
) -> RefreshReport:
    """The lake holds every declared user's embeddings as of ``end``, and ``job_runs`` says so.

    Incremental: new and changed source rows only, new texts only, users who are dirty only
    (docs/refresh.md). A second call changes nothing but ``job_runs``. A run that was killed is continued by
    the next.

    Args:
        end: the cutoff; without a zone it is UTC.
        scenarios: names; None is all.
        full: read every source anew and look at every user again.
        progress: who watches; None is a bar on a terminal.

    Raises:
        JobBusyError: another run holds the lake. InputDataError: a source, column or too many rows cannot
        be used. LakeError: disk or permission. EngineError: an engine cannot be loaded or has changed.
        The lake is readable in every case.
    """
    end = end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)
    lake = Lake(spark, settings)
    names = chosen(declarations, scenarios)
    clock = RunClock(settings)
    with in_utc(spark):
        lake.prepare()
        with only_run(lake.folder, clock.run):
            lake.create_tables()
            run = Run(lake, settings, clock, end, progress or default_progress(), full)
            with run.recorded():
                groups = asked_groups(settings, declarations, names)
                profiles = {one.profile for one in names} if scenarios else set(declarations.profiles)
                run.sequences([declarations.profiles[name] for name in sorted(profiles)])
                run.pushed()
                vectors = run.vectors(groups)
                run.prefixes(groups, vectors)
                run.embeddings(groups)
            return run.report()


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m spark_jobs.refresh --declarations d.json --settings s.json --end 2018-01-01T00:00:00Z``.

    Prints the report as JSON. ``d.json`` is ``Declarations.to_json()``; ``s.json`` the ``qanchor:`` section
    of feature_store.yaml as JSON, its relative paths relative to the file.
    """
    parser = argparse.ArgumentParser(prog="spark_jobs.refresh", description=__doc__)
    parser.add_argument("--declarations", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--end", required=True, help="the cutoff, such as 2018-01-01T00:00:00Z")
    parser.add_argument("--scenario", action="append", help="only this one (repeatable)")
    parser.add_argument("--full", action="store_true", help="read every source anew")
    given = parser.parse_args(arguments)
    try:
        end = datetime.fromisoformat(given.end)
    except ValueError as error:
        raise InputDataError(f"--end is {given.end!r}; write it as 2018-01-01T00:00:00Z.") from error
    settings = Settings.from_mapping(
        json.loads(given.settings.read_text()), repo_path=given.settings.parent.resolve()
    )
    declarations = Declarations.from_json(given.declarations.read_text())
    spark = get_session(settings, app_name="qanchor refresh")
    try:
        report = refresh(spark, settings, declarations, end=end, scenarios=given.scenario, full=given.full)
    finally:
        spark.stop()
    print(json.dumps(asdict(report), default=str, indent=2))


if __name__ == "__main__":
    main()
