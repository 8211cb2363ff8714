"""The lake's Delta tables: created to ``schemas.py``, appended to in whole commits."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import LakeError
from spark_jobs.failures import named_failures
from spark_jobs.layout import LAYOUT, LAYOUT_FILE, write_layout

STATISTICS: Mapping[str, tuple[str, ...]] = {
    "event_texts": (),
    "event_vectors": (),
    "behaviour_sequences": (S.MODALITY, S.MODALITY_DIGEST, S.BATCH),
    "profile_rows": (S.MODALITY, S.MODALITY_DIGEST, S.BATCH),
    "changed_users": (S.MODALITY_DIGEST, S.BATCH),
    "user_prefixes": (S.PREFIX_DIGEST, S.BATCH, S.CUTOFF),
    "scenario_embeddings": (S.SCENARIO_ID, S.BATCH, S.CUTOFF, S.SERVED_AT),
    "job_runs": (S.JOB, S.RUN, S.STATE, S.SCENARIO, S.STARTED_AT),
    "pushed_events": S.PUSHED_STATISTICS,
}
"""Columns whose least and greatest values the Delta log keeps: never a text or a user."""

UNCOMPRESSED = frozenset({"event_vectors", "user_prefixes"})
"""Floats do not compress; a reader of one user wants small row groups it can map."""

ROW_GROUP_BYTES = 1 << 20


class Lake:
    """The tables under ``settings.lake``."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        if "://" in settings.lake and not settings.lake.startswith("file://"):
            raise LakeError(
                f"lake {settings.lake!r} is not a folder. Give a path that the driver and every executor "
                "see (a local disk, or a mounted share): the vector snapshot and the lock live beside the "
                "tables."
            )
        self.spark = spark
        self._settings = settings
        self.folder = Path(settings.lake.removeprefix("file://"))

    def path(self, name: str) -> str:
        """Where a table stands."""
        if name not in S.TABLES:
            raise LakeError(f"the lake has no table {name!r}; it has {sorted(S.TABLES)}.")
        return str(self.folder / name)

    def exists(self, name: str) -> bool:
        """Whether the table has been created."""
        return (Path(self.path(name)) / "_delta_log").is_dir()

    def schema(self, name: str) -> StructType:
        """The table's columns as Spark types."""
        self.path(name)
        return from_arrow_schema(S.TABLES[name])

    def read(self, name: str) -> DataFrame:
        """The table as of now; without rows when it was never created."""
        if not self.exists(name):
            return self.spark.createDataFrame([], self.schema(name))
        rows = self.spark.read.format("delta").load(self.path(name))
        columns = [
            F.col(one.name) if one.name in rows.columns else F.lit(None).cast(one.dataType).alias(one.name)
            for one in self.schema(name)
        ]
        return rows.select(*columns)

    def version(self, name: str) -> int:
        """The table's newest Delta version; -1 when it was never created."""
        commits = (Path(self.path(name)) / "_delta_log").glob("*.json")
        return max((int(one.stem) for one in commits if one.stem.isdecimal()), default=-1)

    def ensure(self) -> None:
        """:meth:`prepare` and :meth:`create_tables`: for who is alone on the lake."""
        self.prepare()
        self.create_tables()

    def prepare(self) -> None:
        """The folder stands, and what is in it has this version's layout.

        Raises:
            LakeError: the folder cannot be written, or the lake is of a newer layout.
        """
        check_writable(self.folder)
        self._bring_up_to_date()

    def create_tables(self) -> None:
        """Every table stands, empty if it was not there, with every column that it ought to have.

        A job calls it with the lake's lock held: two that create one table at once both fail.
        """
        for name in S.TABLES:
            if self.exists(name):
                self._complete(name)
            else:
                self._create(name)

    def _bring_up_to_date(self) -> None:
        from spark_jobs.migrate import ready_for_jobs  # which reads this module's statistics

        if not (self.folder / LAYOUT_FILE).exists() and not any(self.folder.glob("*/_delta_log")):
            write_layout(self.folder, LAYOUT)
        ready_for_jobs(self._settings)

    def _complete(self, name: str) -> None:
        """Columns that an earlier layout of the table did not have are there, null in its rows."""
        stands = set(self.spark.read.format("delta").load(self.path(name)).columns)
        missing = [one for one in self.schema(name) if one.name not in stands]
        if missing:
            added = ", ".join(f"{one.name} {one.dataType.simpleString()}" for one in missing)
            with named_failures(self.path(name)):
                self.spark.sql(f"ALTER TABLE delta.`{self.path(name)}` ADD COLUMNS ({added})")

    def append(self, name: str, rows: DataFrame) -> None:
        """``rows`` are in the table, in one commit.

        Raises:
            LakeError: the disk is full or the folder cannot be written; nothing was committed.
        """
        self._write(name, rows, {})

    def replace(self, name: str, rows: DataFrame, *, where: str) -> None:
        """``rows``, which all match ``where``, stand instead of those that matched it: one commit."""
        self._write(name, rows, {"replaceWhere": where})

    def _write(self, name: str, rows: DataFrame, options: Mapping[str, str]) -> None:
        columns = [F.col(field.name).cast(field.dataType) for field in self.schema(name)]
        mode = "overwrite" if options else "append"
        with named_failures(self.path(name)), self._row_groups(name):
            writer = rows.select(*columns).write.format("delta").mode(mode).options(**options)
            if name in UNCOMPRESSED:
                writer = writer.option("compression", "uncompressed")
            writer.save(self.path(name))

    def _create(self, name: str) -> None:
        stats = STATISTICS[name]
        builder = (
            DeltaTable.createIfNotExists(self.spark)
            .location(self.path(name))
            .addColumns(self.schema(name))
            .property("delta.enableDeletionVectors", "false")
            .property("delta.columnMapping.mode", "none")
        )
        if stats:
            builder = builder.property("delta.dataSkippingStatsColumns", ",".join(stats))
        else:
            builder = builder.property("delta.dataSkippingNumIndexedCols", "0")
        if S.PARTITIONED_BY[name]:
            builder = builder.partitionedBy(*S.PARTITIONED_BY[name])
        with named_failures(self.path(name)):
            builder.execute()

    @contextlib.contextmanager
    def _row_groups(self, name: str) -> Iterator[None]:
        if name not in UNCOMPRESSED:
            yield
            return
        self.spark.conf.set("parquet.block.size", str(ROW_GROUP_BYTES))
        try:
            yield
        finally:
            self.spark.conf.unset("parquet.block.size")


def check_writable(folder: Path) -> None:
    """The folder stands and a file can be made in it.

    Raises:
        LakeError: naming the folder and the reason.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError as error:
        raise LakeError(
            f"lake {folder} cannot be written ({error.strerror}). Nothing was done. Set qanchor: lake: in "
            "feature_store.yaml to a folder with room that this user may write."
        ) from error
