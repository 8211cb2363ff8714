"""Data files that no version in use needs: removed when they hold what must not stay."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from spark_jobs.table_files import TableFiles

WRITTEN_WITHOUT_LOCK = frozenset({"scenario_embeddings", "pushed_events"})
"""Serving processes append to these at any time: a young file may be a commit that is on its way."""

SETTLED_SECONDS = 60.0
"""A file that no commit named after this long belongs to a writer that died."""


class Sweep:
    """Removes unused files, change-data files and orphans among them.

    Args:
        count: told (table, ``data_files``, how many).
        faults: gains a sentence for each file that must stay for now.
    """

    def __init__(self, count: Callable[[str, str, int], None], faults: list[str]) -> None:
        self._count, self._faults = count, faults

    def files(
        self, name: str, table: TableFiles, is_held: Callable[[pa.Table], bool], columns: Sequence[str]
    ) -> None:
        """The table's unused files in which ``is_held`` is true of some rows are gone."""
        committed = table.committed_names()
        for path in table.unused():
            if not _held(table, path, is_held, columns):
                continue
            is_known = str(path.relative_to(table.folder)) in committed
            if not is_known and name in WRITTEN_WITHOUT_LOCK and _is_young(path):
                self._faults.append(
                    f"{name}: a file written within the last {SETTLED_SECONDS:.0f} s is not committed yet; "
                    "run it again in a minute."
                )
                continue
            remove_file(path)
            self._count(name, "data_files", 1)


def remove_file(path: Path) -> None:
    """The data file and Hadoop's checksum of it are gone."""
    path.unlink(missing_ok=True)
    path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


def _held(table: TableFiles, path: Path, is_held: Callable[[pa.Table], bool], columns: Sequence[str]) -> bool:
    """Whether some row is meant; a file that cannot be read is taken to be."""
    try:
        return any(is_held(rows) for rows in table.batches(path, columns) if rows.num_columns)
    except (OSError, pa.ArrowException):
        return True


def _is_young(path: Path) -> bool:
    return path.exists() and time.time() - path.stat().st_mtime < SETTLED_SECONDS
