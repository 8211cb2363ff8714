"""The whole refresh: sequences, texts, vectors, prefixes, embeddings, and what was done."""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.errors import InputDataError, QAnchorError
from qanchor_plugin.identity import digest
from spark_jobs import build_prefixes, build_sequences, embed_scenarios, encode_events, pushed
from spark_jobs.engines import AskedGroup, EngineRef, asked_groups, chosen
from spark_jobs.failures import named_failures
from spark_jobs.lock import only_run
from spark_jobs.progress import Progress, default_progress
from spark_jobs.runs import (
    FAILED,
    SCENARIO_JOB,
    JobRow,
    RunClock,
    consumed_batches,
    consumed_versions,
    write_runs,
)
from spark_jobs.session import get_session, in_utc
from spark_jobs.tables import Lake


@dataclass(frozen=True, kw_only=True)
class RefreshReport:
    """What a run did.

    Attributes:
        run: its id; the ``batch`` of every prefix and embedding that it wrote.
        state: ``succeeded`` (a failed run raises).
        started_at: by the settings' clock.
        end: the cutoff.
        seconds: how long it took.
        counts: by job: sequences by modality, new texts, new vectors, users and rows written by group.
        batches: source versions consumed, by modality name; modalities without news are left out.
        scenarios: scenario name to its identity; each is complete to ``end``.
    """

    run: str
    state: str
    started_at: datetime
    end: datetime
    seconds: float
    counts: dict[str, Any] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)
    scenarios: dict[str, str] = field(default_factory=dict)


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

    Incremental: new source rows only, new texts only, users whose prefix changed only. A second call
    changes nothing but ``job_runs``. A run that was killed is continued by the next.

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
        lake.ensure()
        with only_run(lake.folder, clock.run):
            run = _Run(lake, settings, clock, end, progress or default_progress(), full)
            with run.recorded():
                groups = asked_groups(settings, declarations, names)
                profiles = {one.profile for one in names} if scenarios else set(declarations.profiles)
                run.sequences([declarations.profiles[name] for name in sorted(profiles)])
                run.pushed()
                vectors = run.vectors(groups)
                run.prefixes(groups, vectors)
                run.embeddings(groups)
            return run.report()


class _Run:
    """One run's steps, in order; each leaves its row for ``job_runs``."""

    def __init__(
        self, lake: Lake, settings: Settings, clock: RunClock, end: datetime, progress: Progress, full: bool
    ) -> None:
        self.lake, self.settings, self.clock, self.end = lake, settings, clock, end
        self.progress, self.full = progress, full
        self.end_us = round(end.timestamp() * 1_000_000)
        self.rows: list[JobRow] = []
        self.batches: dict[str, str] = {}
        self._job = "sequences"
        self._known = consumed_versions(lake)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """What was done is in ``job_runs`` after the block, also when it failed."""
        try:
            with named_failures(f"refresh, {self.lake.folder}"):
                yield
        except (QAnchorError, PySparkException, Py4JJavaError) as error:
            failed = JobRow(job=self._job, state=FAILED, message=f"{type(error).__name__}: {error}"[:2000])
            try:
                write_runs(self.lake, self.clock, [*self.rows, failed])
            except (QAnchorError, PySparkException, Py4JJavaError) as second:
                error.add_note(f"The failure could not be recorded in job_runs either: {second}")
            raise
        write_runs(self.lake, self.clock, self.rows)

    def sequences(self, profiles: Sequence[Any]) -> None:
        """New source rows are in the lake, as texts and sequences."""
        lake, settings = self.lake, self.settings
        consumed = consumed_batches(lake, self._known.get("sequences", ()))
        planned = build_sequences.plan(lake.spark, settings, profiles, consumed, full=self.full)
        counts: dict[str, Any] = {}
        versions: dict[str, str] = {}
        num_texts = 0
        for one in planned:
            num_texts += build_sequences.write(lake, settings, one, self.progress)
            counts[one.modality.name] = one.counts
            versions[one.modality.sequence_digest] = str(one.batch)
            self.batches[one.modality.name] = str(one.batch)
        self.rows.append(JobRow(job="sequences", source_versions=versions, counts=counts))
        self.rows.append(JobRow(job="texts", counts={"new": num_texts}))

    def pushed(self) -> None:
        """Pushed events that the sequences hold now are pushed events no more."""
        self._job = "pushed"
        counts = pushed.catch_up(self.lake, self.settings)
        if counts:
            self.rows.append(JobRow(job="pushed", counts=counts))

    def vectors(self, groups: Sequence[AskedGroup]) -> dict[str, str]:
        """Every text has a vector of every encoder that is asked; encoder id to snapshot folder."""
        self._job = "vectors"
        folders, counts, inputs = {}, {}, {}
        for engine in {group.engine.encoder_id: group.engine for group in groups}.values():
            one = engine.encoder_id
            folder = encode_events.current_snapshot(self.lake, one)
            counts[one] = 0
            if folder is None or not self._had(one, self._texts_and_vectors(engine)):
                counts[one] = encode_events.encode(self.lake, engine, self.progress)
                force = bool(counts[one]) or self.full
                folder = encode_events.export_snapshot(self.lake, engine, force=force)
            folders[one], inputs[one] = str(folder), self._texts_and_vectors(engine)
        self.rows.append(JobRow(job="vectors", source_versions=inputs, counts=counts))
        return folders

    def prefixes(self, groups: Sequence[AskedGroup], vectors: dict[str, str]) -> None:
        """Every user's newest prefix is the one at the end."""
        self._job = "prefixes"

        def build(group: AskedGroup) -> dict[str, int]:
            return build_prefixes.build(
                self.lake,
                self.settings,
                group,
                end=self.end_us,
                run=self.clock.run,
                vectors=vectors[group.engine.encoder_id],
                progress=self.progress,
            )

        tables = ("behaviour_sequences", "profile_rows")
        self._each(groups, build, tables, lambda group: [group.profile.digest, group.engine.prefix_digest])

    def embeddings(self, groups: Sequence[AskedGroup]) -> None:
        """Every user's newest embedding of every scenario is the one at the end."""
        self._job = "embeddings"

        def embed(group: AskedGroup) -> dict[str, int]:
            return embed_scenarios.embed(
                self.lake,
                self.settings,
                group,
                end=self.end_us,
                served_at=round(self.clock.started_at.timestamp() * 1_000_000),
                run=self.clock.run,
                progress=self.progress,
            )

        tables = ("behaviour_sequences", "profile_rows", "user_prefixes")
        self._each(groups, embed, tables, lambda group: sorted(one.scenario_id for one in group.queries))
        for query in (one for group in groups for one in group.queries):
            row = JobRow(
                job=SCENARIO_JOB,
                scenario=query.scenario,
                scenario_id=query.scenario_id,
                complete_to=self.end,
            )
            self.rows.append(row)

    def _each(self, groups: Sequence[AskedGroup], work: Any, tables: Sequence[str], parts: Any) -> None:
        """``work`` on every group whose inputs no succeeded run of this job has had; one row for all."""
        state = [self.lake.version(name) for name in tables]
        inputs, counts = {}, {}
        for group in groups:
            inputs[group.name] = digest(self._job, state, self.end_us, parts(group))
            same = self._had(group.name, inputs[group.name])
            counts[group.name] = {"users": 0, "written": 0, "unchanged": 1} if same else work(group)
        self.rows.append(JobRow(job=self._job, source_versions=inputs, counts=counts))

    def _had(self, name: str, inputs: str) -> bool:
        """Whether a succeeded run of this job has had these very inputs."""
        runs = [] if self.full else self._known.get(self._job, [])
        return any(versions.get(name) == inputs for versions in runs)

    def _texts_and_vectors(self, engine: EngineRef) -> str:
        versions = [self.lake.version(name) for name in ("event_texts", "event_vectors")]
        return digest("vectors", engine.encoder_id, versions)

    def report(self) -> RefreshReport:
        """The finished run."""
        return RefreshReport(
            run=self.clock.run,
            state="succeeded",
            started_at=self.clock.started_at,
            end=self.end,
            seconds=round(self.clock.seconds, 3),
            counts={row.job: dict(row.counts) for row in self.rows if row.job != SCENARIO_JOB},
            batches=self.batches,
            scenarios={row.scenario: row.scenario_id or "" for row in self.rows if row.scenario},
        )


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
