"""The lake's Delta tables, read and appended without a JVM (delta-rs)."""

import contextlib
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import LakeError
from qanchor_plugin.extras import require

MAX_AGE_SECONDS = 2.0
"""A table's snapshot is looked up again after this long: commits are seen at the latest then."""


class LakeTables:
    """Snapshots of the lake's tables, shared by the threads of one process.

    Args:
        lake: folder or URI of the lake.
        max_age_seconds: how long a snapshot is used before its newest version is looked up.
    """

    def __init__(self, lake: str, *, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self.lake = lake
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._open: dict[str, tuple[float, int, ds.Dataset]] = {}

    def path(self, name: str) -> str:
        """Where the table stands."""
        return f"{self.lake}/{name}"

    def exists(self, name: str) -> bool:
        """Whether the table has been written at all."""
        deltalake = require("deltalake", purpose="Reading the lake")
        return bool(deltalake.DeltaTable.is_deltatable(self.path(name)))

    def read(
        self, name: str, *, columns: Sequence[str] | None = None, where: ds.Expression | None = None
    ) -> pa.Table:
        """Rows of the newest version; partition columns in ``where`` prune files.

        Raises:
            LakeError: the table is missing or cannot be read; says what to do next.
        """
        wanted = list(columns) if columns else None
        with contextlib.suppress(OSError, pa.ArrowException):
            return self._dataset(name).to_table(columns=wanted, filter=where)
        with self._lock:  # files of a snapshot held may be gone since: the newest version has others
            self._open.pop(name, None)
        try:
            return self._dataset(name).to_table(columns=wanted, filter=where)
        except (OSError, pa.ArrowException) as error:
            with self._lock:
                self._open.pop(name, None)
            raise LakeError(
                f"table {name!r} of the lake {self.lake!r} cannot be read ({_first_line(error)}). "
                "See: qanchor status."
            ) from error

    def append(self, name: str, rows: pa.Table) -> None:
        """``rows`` are committed to the table as one version.

        Raises:
            LakeError: the table is missing or not writable.
        """
        deltalake = require("deltalake", purpose="Writing the lake")
        self._dataset(name)
        try:
            deltalake.write_deltalake(self.path(name), rows.cast(S.TABLES[name]), mode="append")
        except (OSError, pa.ArrowException, deltalake.exceptions.DeltaError) as error:
            raise LakeError(
                f"{rows.num_rows} rows could not be appended to {self.path(name)} ({_first_line(error)}). "
                "Check that the lake is writable and has space; what was not appended is only history."
            ) from error

    def expire(self, name: str) -> None:
        """The next read looks at the table's newest version, however young the snapshot held is."""
        with self._lock:
            known = self._open.get(name)
            if known is not None:
                self._open[name] = (-math.inf, known[1], known[2])

    def _dataset(self, name: str) -> ds.Dataset:
        now = time.monotonic()
        with self._lock:
            known = self._open.get(name)
            if known is not None and now - known[0] < self._max_age_seconds:
                return known[2]
            version, dataset = self._newest(name, known)
            self._open[name] = (now, version, dataset)
            return dataset

    def _newest(self, name: str, known: tuple[float, int, ds.Dataset] | None) -> tuple[int, ds.Dataset]:
        deltalake = require("deltalake", purpose="Reading the lake")
        try:
            table: Any = deltalake.DeltaTable(self.path(name))
            if known is not None and known[1] == table.version():
                return known[1], known[2]
            return table.version(), table.to_pyarrow_dataset()
        except deltalake.exceptions.TableNotFoundError as error:
            raise LakeError(
                f"the lake {self.lake!r} has no table {name!r} yet. Run feast materialize once, "
                "or correct 'qanchor: lake:' in feature_store.yaml."
            ) from error
        except (OSError, pa.ArrowException, deltalake.exceptions.DeltaError) as error:
            raise LakeError(
                f"table {name!r} of the lake {self.lake!r} cannot be opened ({_first_line(error)}). "
                "Tables read here must have no deletion vectors and no column mapping; see: qanchor status."
            ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
