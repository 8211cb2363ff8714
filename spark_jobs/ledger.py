"""Rows of ``job_runs`` for jobs that need no Spark, and the tables of a lake as such jobs see them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import LakeError
from qanchor_plugin.prefix_store import LakeTables, pushed_table
from spark_jobs.layout import refuse_newer
from spark_jobs.table_files import LOG, TableFiles
from spark_jobs.tables import STATISTICS, UNCOMPRESSED


def lake_folder(lake: str) -> Path:
    """The lake's folder.

    Raises:
        LakeError: it is not a folder that stands here, or of a newer layout.
    """
    folder = Path(lake.removeprefix("file://"))
    if "://" in str(folder) or not folder.is_dir():
        raise LakeError(f"there is no lake at {lake}. Run feast materialize once, or mend qanchor: lake:.")
    refuse_newer(folder)
    return folder


def tables_of(folder: Path) -> dict[str, TableFiles]:
    """Every Delta table in the lake's folder by name, those that this version does not know among them."""
    names = sorted(one.name for one in folder.iterdir() if (one / LOG).is_dir())
    return {name: opened(folder, name) for name in names}


def opened(folder: Path, name: str) -> TableFiles:
    """One table, to be written as the jobs write it: statistics of no user and no text."""
    compression = "none" if name in UNCOMPRESSED else "snappy"
    return TableFiles(folder / name, statistics=STATISTICS.get(name, ()), compression=compression)


@contextmanager
def undisturbed(table: TableFiles) -> Iterator[TableFiles]:
    """The table at its newest version, within a block in which no push can write it."""
    is_pushed = table.folder.name == pushed_table.TABLE
    with pushed_table.alone(str(table.folder)) if is_pushed else nullcontext():
        table.look_again()
        yield table


def record(
    folder: Path,
    *,
    job: str,
    run: str,
    state: str,
    started_at: datetime,
    ended_at: datetime,
    counts: Mapping[str, Any],
    message: str = "",
) -> None:
    """The run stands in ``job_runs``; in a lake without that table it does not."""
    tables = LakeTables(str(folder))
    if not tables.exists("job_runs"):
        return
    row = {
        S.JOB: job,
        S.RUN: run,
        S.STATE: state,
        S.STARTED_AT: started_at,
        S.ENDED_AT: ended_at,
        S.SOURCE_VERSIONS: "{}",
        S.COUNTS: json.dumps(dict(counts), sort_keys=True),
        S.MESSAGE: message,
    }
    tables.append("job_runs", pa.Table.from_pylist([row], schema=S.TABLES["job_runs"]))
