"""The answer to a historical request, still in Spark until somebody asks for it."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
from feast import OnDemandFeatureView
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkRetrievalJob
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from pyspark.sql import DataFrame

from qanchor_plugin.feast_ext.asof_join import quoted
from qanchor_plugin.feast_ext.parquet_output import utc_microseconds
from spark_jobs.failures import named_failures
from spark_jobs.progress import default_progress, tasks_watched


class QAnchorRetrievalJob(SparkRetrievalJob):
    """Feast's Spark job over a frame instead of an SQL text.

    ``to_df`` and ``to_arrow`` run on-demand views on the driver; ``to_spark_df`` and ``persist`` do not, as
    in Feast's own Spark store. Instants come back as UTC whatever the session's zone.
    """

    def __init__(
        self,
        frame: DataFrame,
        config: RepoConfig,
        *,
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
        hidden: Sequence[str] = (),
    ) -> None:
        super().__init__(
            spark_session=frame.sparkSession,
            query="",
            full_feature_names=full_feature_names,
            config=config,
            on_demand_feature_views=list(on_demand_feature_views),
            metadata=metadata,
        )
        self._frame = frame
        self._hidden = tuple(hidden)

    def to_spark_df(self) -> DataFrame:
        """Entity columns and features, lazily; without what only on-demand views read."""
        return self._frame.select(*[quoted(name) for name in self._frame.columns if name not in self._hidden])

    def to_arrow(self, *args: Any, **kwargs: Any) -> pa.Table:
        """All rows on the driver, on-demand features included."""
        table = super().to_arrow(*args, **kwargs)
        return table.drop_columns([name for name in self._hidden if name in table.column_names])

    def to_remote_storage(self) -> list[str]:
        """The files of the answer under ``staging_location``, in the rows' order."""
        with named_failures("historical features"), utc_microseconds(self._frame.sparkSession):
            return sorted(super().to_remote_storage())

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool | None = False, timeout: int | None = None
    ) -> None:
        """The answer stands in a table or a folder, as Feast's own Spark job leaves it."""
        with named_failures("the saved dataset"), utc_microseconds(self._frame.sparkSession):
            super().persist(storage, allow_overwrite, timeout)

    def to_arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of :meth:`to_spark_df` in their order, batch by batch: never all of them on the driver.

        They pass through parquet in ``staging_location`` where that is a folder, else in this machine's
        temporary one, which executors elsewhere do not see.
        """
        staging = self._config.offline_store.staging_location or ""
        local = staging.removeprefix("file://")
        with tempfile.TemporaryDirectory(dir=local if local.startswith("/") else None) as folder:
            with named_failures("historical features"), utc_microseconds(self._frame.sparkSession):
                self.to_spark_df().write.parquet(f"{folder}/rows")
            files = sorted(str(one) for one in Path(folder, "rows").glob("*.parquet"))
            for batch in pads.dataset(files).to_batches() if files else ():
                yield from in_utc(pa.Table.from_batches([batch])).to_batches()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        watched = tasks_watched(self._frame.sparkSession, default_progress(), "tasks of the historical read")
        with named_failures("historical features"), watched:
            if self._should_use_staging_for_arrow() and not self._hidden:
                return in_utc(self._to_arrow_via_staging())
            return in_utc(self._frame.toArrow())

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout=timeout).to_pandas()


def in_utc(table: pa.Table) -> pa.Table:
    """The table with every instant labelled UTC microseconds; the instants are the same."""
    fields: list[pa.Field] = []
    for field in table.schema:
        zoned = pa.types.is_timestamp(field.type) and field.type.tz is not None
        fields.append(pa.field(field.name, pa.timestamp("us", tz="UTC")) if zoned else field)
    return table.cast(pa.schema(fields))
