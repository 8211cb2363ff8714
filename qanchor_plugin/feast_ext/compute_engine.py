"""Materialise: all anchor views of a call in one refresh, committed to Delta, then written online.

The order is the guarantee: the online store holds only what the lake holds, so a run that failed while
writing online is mended by running it again, without the model.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from feast import utils
from feast.infra.common.materialization_job import (
    MaterializationJob,
    MaterializationJobStatus,
    MaterializationTask,
)
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from qanchor_plugin.backend import LakeReader
from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.extras import require
from qanchor_plugin.feast_ext.declarations import declarations_of, is_anchor, settings_from_config
from qanchor_plugin.feast_ext.materialize_online import write_anchor, write_ordinary
from qanchor_plugin.feast_ext.online_rows import Anchor, micros_of
from qanchor_plugin.prefix_store import LakeTables

logger = logging.getLogger(__name__)


class QAnchorComputeEngineConfig(FeastConfigBaseModel):
    """``batch_engine:`` in feature_store.yaml; Spark itself is configured under ``qanchor:``."""

    type: Literal["qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine"] = (
        "qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine"
    )


@dataclass(frozen=True)
class QAnchorJob(MaterializationJob):
    """One task's outcome.

    Attributes:
        task: what was asked.
        failure: why it failed; None when it succeeded.
        num_written: rows written online.
    """

    task: MaterializationTask
    failure: Exception | None = None
    num_written: int = 0

    def status(self) -> MaterializationJobStatus:
        """Succeeded, or error."""
        return MaterializationJobStatus.ERROR if self.failure else MaterializationJobStatus.SUCCEEDED

    def error(self) -> Exception | None:
        """Why it failed."""
        return self.failure

    def should_be_retried(self) -> bool:
        """Never by itself: the message says what to do first."""
        return False

    def job_id(self) -> str:
        """View, start and end."""
        task = self.task
        return f"{task.feature_view.name}-{task.start_time.isoformat()}-{task.end_time.isoformat()}"

    def url(self) -> str | None:
        """None: the run is told in ``job_runs`` (qanchor status)."""
        return None


class QAnchorComputeEngine(ComputeEngine):
    """``batch_engine: type: qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine``."""

    @property
    def supports_batch(self) -> bool:
        """All views of a call arrive together."""
        return True

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to prepare: the first run makes the lake's tables."""

    def teardown_infra(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is deleted: the lake outlives the store (``qanchor purge --yes`` deletes it)."""

    def materialize(
        self, registry: BaseRegistry, tasks: Any, *, lineage_parent: Any = None, **kwargs: Any
    ) -> list[MaterializationJob]:
        """One job a task, in order; faults are jobs in error, for a raise would roll back every view."""
        tasks = [tasks] if isinstance(tasks, MaterializationTask) else list(tasks)
        anchors = [number for number, task in enumerate(tasks) if is_anchor(task.feature_view)]
        jobs: dict[int, QAnchorJob] = {}
        if anchors:
            done = self._materialize_anchors([tasks[number] for number in anchors])
            jobs = dict(zip(anchors, done, strict=True))
        for number, task in enumerate(tasks):
            if number not in jobs:
                jobs[number] = self._guarded(task, lambda task=task: self._ordinary(registry, task))
        return [jobs[number] for number in range(len(tasks))]

    def _materialize_anchors(self, tasks: Sequence[MaterializationTask]) -> list[QAnchorJob]:
        """The tasks' jobs; views of one END and of one declaration share one refresh."""
        groups: dict[datetime, list[int]] = {}
        for number, task in enumerate(tasks):
            groups.setdefault(self._end(task), []).append(number)
        jobs: dict[int, QAnchorJob] = {}
        for end, numbers in groups.items():
            done = self._refresh_and_write([tasks[number] for number in numbers], end)
            jobs.update(zip(numbers, done, strict=True))
        return [jobs[number] for number in range(len(tasks))]

    def _refresh_and_write(self, tasks: Sequence[MaterializationTask], end: datetime) -> list[QAnchorJob]:
        started_at = datetime.now(UTC)
        try:
            settings = settings_from_config(self.repo_config)
            declared = declarations_of(tasks[0].project, [task.feature_view for task in tasks])
            before = self._watermarks(settings, tasks)
            spark = self._refresh(settings, declared, end)
        except Exception as error:  # noqa: BLE001  # a raise rolls back every view; Feast is handed it
            return [QAnchorJob(task, error) for task in tasks]
        jobs = []
        for task, complete_to in zip(tasks, before, strict=True):
            if complete_to is not None and micros_of(end) < complete_to:
                logger.info(
                    "%s: END lies before the watermark, only history is written", task.feature_view.name
                )
                jobs.append(QAnchorJob(task))
            elif not task.feature_view.online:
                jobs.append(QAnchorJob(task))
            else:
                write = _Write(self, task, spark, settings, started_at)
                jobs.append(self._guarded(task, write))
        return jobs

    def _refresh(self, settings: Settings, declared: Declarations, end: datetime) -> Any:
        require("pyspark", purpose="Materialising")
        from spark_jobs.refresh import refresh
        from spark_jobs.session import get_session

        spark = get_session(settings)
        refresh(spark, settings, declared, end=end)
        return spark

    def _watermarks(self, settings: Settings, tasks: Sequence[MaterializationTask]) -> list[int | None]:
        reader = LakeReader(LakeTables(settings.lake))
        anchors = [Anchor.of(task.feature_view) for task in tasks]
        return [reader.complete_to(one.scenario.name, one.scenario_id) for one in anchors]

    def _ordinary(self, registry: BaseRegistry, task: MaterializationTask) -> int:
        view: Any = task.feature_view
        if getattr(view, "feature_transformation", None) is not None:
            raise InputDataError(
                f"feature view {view.name!r} has a transformation, which this engine does not run. "
                "Write its output to a table and declare that as the source, or use Feast's spark.engine."
            )
        entities = [registry.get_entity(name, task.project) for name in view.entities]
        keys, features, timestamp, created = utils._get_column_names(view, entities)
        job = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=view.batch_source,
            join_key_columns=keys,
            feature_name_columns=features,
            timestamp_field=timestamp,
            created_timestamp_column=created,
            start_date=datetime(1970, 1, 1, tzinfo=UTC) if task.disable_event_timestamp else task.start_time,
            end_date=self._end(task),
        )
        return write_ordinary(self.repo_config, task, job)

    def _end(self, task: MaterializationTask) -> datetime:
        if task.disable_event_timestamp:
            return settings_from_config(self.repo_config).now()
        return task.end_time.astimezone(UTC)

    def _guarded(self, task: MaterializationTask, work: Any) -> QAnchorJob:
        try:
            return QAnchorJob(task, num_written=work())
        except Exception as error:  # noqa: BLE001  # a raise rolls back every view; Feast is handed it
            return QAnchorJob(task, error)


@dataclass(frozen=True)
class _Write:
    """The online write of one anchor view, still to be done."""

    engine: QAnchorComputeEngine
    task: MaterializationTask
    spark: Any
    settings: Settings
    started_at: datetime

    def __call__(self) -> int:
        return write_anchor(self.engine.repo_config, self.task, self.spark, self.settings, self.started_at)
