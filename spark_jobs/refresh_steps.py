"""One refresh, step by step: each leaves what it did for ``job_runs``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.errors import QAnchorError
from qanchor_plugin.identity import digest
from spark_jobs import build_prefixes, build_sequences, embed_scenarios, encode_events, pushed
from spark_jobs.build_sequences import told_why
from spark_jobs.dirty import CHECKED, EVERYONE, checked_now, dirty_users, last_checked, standing_at
from spark_jobs.dirty import counted as reasons_of
from spark_jobs.due import counted as answers_of
from spark_jobs.due import wanted_answers
from spark_jobs.engines import AskedGroup, EngineRef
from spark_jobs.failures import named_failures
from spark_jobs.isolation import FAILED_USERS, LEFT_OUT, message_of
from spark_jobs.progress import Progress
from spark_jobs.runs import (
    FAILED,
    SCENARIO_JOB,
    JobRow,
    RunClock,
    consumed,
    consumed_versions,
    newest_event,
    write_runs,
)
from spark_jobs.sources import Batch
from spark_jobs.tables import Lake

Rows = TypeVar("Rows", DataFrame, DataFrame | None)


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


class Run:
    """One run's steps, in order; each leaves its row for ``job_runs``."""

    def __init__(
        self, lake: Lake, settings: Settings, clock: RunClock, end: datetime, progress: Progress, full: bool
    ) -> None:
        self.lake, self.settings, self.clock, self.end = lake, settings, clock, end
        self.progress, self.full = progress, full
        self.end_us = round(end.timestamp() * 1_000_000)
        self.rows: list[JobRow] = []
        self.batches: dict[str, str] = {}
        self._job, self._began = "sequences", clock.seconds
        self._known = consumed_versions(lake)
        self._standing: dict[str, Batch] = {}
        self._left_out: dict[str, list[str]] = {}

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

    def sequences(self, profiles: Sequence[Profile]) -> None:
        """New source rows are in the lake, as texts and sequences."""
        lake, settings = self.lake, self.settings
        known = consumed(lake, self._known.get("sequences", ()))
        planned = build_sequences.plan(
            lake.spark, settings, profiles, known, full=self.full, newest=partial(newest_event, lake)
        )
        counts: dict[str, Any] = {}
        versions: dict[str, str] = {}
        num_texts = 0
        for one in planned:
            num_texts += build_sequences.write(lake, settings, one, self.progress)
            counts[one.modality.name] = one.told()
            versions |= one.versions()
            self.batches[one.modality.name] = str(one.batch)
        self._done(
            JobRow(job="sequences", source_versions=versions, counts=counts, message=told_why(planned))
        )
        self._done(JobRow(job="texts", counts={"new": num_texts}))
        self._standing = standing_at(known) | {one.modality.sequence_digest: one.batch for one in planned}

    def pushed(self) -> None:
        """Pushed events that the sequences hold now are pushed events no more."""
        self._job = "pushed"
        counts = pushed.catch_up(self.lake, self.settings)
        if counts:
            self._done(JobRow(job="pushed", counts=counts))

    def vectors(self, groups: Sequence[AskedGroup]) -> dict[str, str]:
        """Every text has a vector of every encoder that is asked; encoder id to snapshot folder."""
        self._job = "vectors"
        folders, counts, inputs = {}, {}, {}
        for engine in {group.engine.encoder_id: group.engine for group in groups}.values():
            one = engine.encoder_id
            folder = encode_events.current_snapshot(self.lake, one)
            counts[one] = 0
            if folder is None or not self._had(one, self._texts_and_vectors(engine)):
                counts[one] = encode_events.encode(self.lake, self.settings, engine, self.progress)
                force = bool(counts[one]) or self.full
                folder = encode_events.export_snapshot(self.lake, engine, force=force)
            folders[one], inputs[one] = str(folder), self._texts_and_vectors(engine)
        self._done(JobRow(job="vectors", source_versions=inputs, counts=counts))
        return folders

    def prefixes(self, groups: Sequence[AskedGroup], vectors: dict[str, str]) -> None:
        """Every user's newest prefix is the one at the end; only dirty users were looked at."""
        self._job = "prefixes"

        def build(group: AskedGroup) -> dict[str, Any]:
            last = None if self.full else last_checked(self._known.get("prefixes", ()), group, self.end_us)
            dirty = dirty_users(self.lake, group, end=self.end_us, checked=last, standing=self._standing)
            with held(dirty.users) as users:
                reasons = None if users is None else reasons_of(users)
                built = build_prefixes.build(
                    self.lake,
                    self.settings,
                    group,
                    end=self.end_us,
                    run=self.clock.run,
                    vectors=vectors[group.engine.encoder_id],
                    progress=self.progress,
                    users=users,
                )
                return built | {"reasons": reasons if users is not None else {EVERYONE: built["users"]}}

        def record(group: AskedGroup) -> dict[str, str]:
            return {CHECKED + group.name: checked_now(group, self.end_us, self._standing).to_json()}

        tables = ("behaviour_sequences", "profile_rows", "changed_users")

        def parts(group: AskedGroup) -> list[str]:
            return [group.profile.digest, group.engine.prefix_digest]

        self._each(groups, build, tables, parts, record)

    def embeddings(self, groups: Sequence[AskedGroup]) -> None:
        """Every user's newest embedding of every scenario is of their prefix, and no older than its ttl."""
        self._job = "embeddings"

        def embed(group: AskedGroup) -> dict[str, Any]:
            left_out = self._left_out.get(group.name, [])
            due = wanted_answers(self.lake, group, end=self.end_us, full=self.full, but=left_out)
            with held(due) as wanted:
                reasons = answers_of(wanted)
                made = embed_scenarios.embed(
                    self.lake,
                    self.settings,
                    group,
                    wanted,
                    end=self.end_us,
                    served_at=round(self.clock.started_at.timestamp() * 1_000_000),
                    run=self.clock.run,
                    progress=self.progress,
                )
                return made | {"reasons": reasons}

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

    def _each(
        self, groups: Sequence[AskedGroup], work: Any, tables: Sequence[str], parts: Any, record: Any = None
    ) -> None:
        """``work`` on every group whose inputs no succeeded run of this job has had; one row for all."""
        state = [self.lake.version(name) for name in tables]
        inputs: dict[str, str] = {}
        counts: dict[str, dict[str, Any]] = {}
        for group in groups:
            inputs[group.name] = digest(self._job, state, self.end_us, parts(group))
            same = self._had(group.name, inputs[group.name])
            counts[group.name] = {"users": 0, "written": 0, "unchanged": 1} if same else work(group)
            if FAILED_USERS in counts[group.name]:
                self._left_out[group.name] = counts[group.name].pop(LEFT_OUT)
                del inputs[group.name]  # the next run looks again
            elif record is not None:
                inputs |= record(group)
        self._done(JobRow(job=self._job, source_versions=inputs, counts=counts, message=message_of(counts)))

    def _done(self, row: JobRow) -> None:
        """The job's row is kept, with when it began and ended."""
        now = self.clock.seconds
        self.rows.append(replace(row, between=(self._began, now)))
        self._began = now

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


@contextmanager
def held(rows: Rows) -> Iterator[Rows]:
    """The rows, computed once however often they are read within the block."""
    if rows is not None:
        rows.persist(StorageLevel.DISK_ONLY)
    try:
        yield rows
    finally:
        if rows is not None:
            rows.unpersist()
