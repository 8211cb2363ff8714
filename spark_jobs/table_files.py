"""The files of one Delta table, without a JVM: looked into, written anew, swept, and the log cut short.

Only a run that holds the lake's lock may call what changes files here.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qanchor_plugin.errors import LakeError
from qanchor_plugin.extras import require
from spark_jobs.new_file import NewFile, cast

LOG = "_delta_log"
_COMMITS_A_CHECKPOINT = 10
_COMMIT = re.compile(r"\.?(\d{20})\.")
Change = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """A data file that the table's newest version is made of.

    Attributes:
        name: as the log writes it, relative to the table and percent-encoded.
        path: where it is.
        partition: column to value, as the log writes them.
        num_bytes: its size.
    """

    name: str
    path: Path
    partition: Mapping[str, str | None]
    num_bytes: int


class TableFiles:
    """One table of a lake.

    Args:
        folder: the table's.
        statistics, compression: of files written here, see :class:`~spark_jobs.new_file.NewFile`.

    Raises:
        LakeError: the folder is no Delta table, or one that cannot be read without a JVM.
    """

    def __init__(self, folder: Path, *, statistics: Sequence[str] = (), compression: str = "snappy") -> None:
        deltalake = require("deltalake", purpose="Maintaining the lake")
        self.folder, self._statistics, self._compression = folder, tuple(statistics), compression
        try:
            self._table: Any = deltalake.DeltaTable(str(folder))
        except (OSError, deltalake.exceptions.DeltaError) as error:
            raise LakeError(f"table {folder} cannot be opened ({error}). See: qanchor status.") from error

    @property
    def version(self) -> int:
        """The Delta version that this object sees."""
        return int(self._table.version())

    @property
    def schema(self) -> pa.Schema:
        """Every column of the table, those of the partition too."""
        return pa.schema(self._table.schema())

    @property
    def partitioned_by(self) -> list[str]:
        """Columns that are folders."""
        return list(self._table.metadata().partition_columns)

    def look_again(self) -> None:
        """This object sees the newest version."""
        self._table.update_incremental()

    def files(self) -> list[TableFile]:
        """The files in use, by name."""
        added = pa.table(self._table.get_add_actions(flatten=False)).to_pylist()
        found = [
            TableFile(
                name=one["path"],
                path=self.folder / unquote(one["path"]),
                partition={key: _as_text(value) for key, value in (one.get("partition") or {}).items()},
                num_bytes=one["size_bytes"],
            )
            for one in added
        ]
        return sorted(found, key=lambda one: one.name)

    def batches(self, file: TableFile | Path, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of a file, as tables of bounded size, instants in microseconds."""
        path = file if isinstance(file, Path) else file.path
        with pq.ParquetFile(path, coerce_int96_timestamp_unit="us", memory_map=True) as opened:
            wanted = [name for name in columns if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(columns=wanted):
                yield pa.Table.from_batches([batch])

    def shaped(self, file: TableFile, columns: Sequence[str]) -> Iterator[pa.Table]:
        """As :meth:`batches`, with the table's own types; columns of the partition are left out."""
        wanted = [name for name in columns if name not in file.partition]
        schema = pa.schema([self.schema.field(name) for name in wanted])
        for part in self.batches(file, wanted):
            yield cast(part, schema)

    def holding(self, column: str, values: pa.Array, files: Iterable[TableFile]) -> list[TableFile]:
        """Those of the files that have a row whose ``column`` is one of ``values``."""
        return [one for one in files if self.holds(one, column, values)]

    def holds(self, file: TableFile | Path, column: str, values: pa.Array) -> bool:
        """Whether a row's ``column`` is one of ``values``; True for a file that cannot be read."""
        try:
            return any(
                pc.any(pc.is_in(part[column], value_set=values)).as_py()
                for part in self.batches(file, [column])
                if column in part.column_names
            )
        except (OSError, pa.ArrowException):
            return True

    def rewrite(self, files: Sequence[TableFile], change: Change, *, keeps_rows: bool = False) -> int:
        """The files hold what ``change`` makes of their rows, in one commit; how many rows are fewer.

        Args:
            change: is handed a table of some rows of one partition, without the partition's columns.
            keeps_rows: the commit says that no data changed.
        """
        actions: list[Any] = []
        before = after = 0
        for file in files:
            added, num_before, num_after = self._written([file], change, keeps_rows)
            before, after = before + num_before, after + num_after
            actions += [*added, self._removed(file, keeps_rows)]
        self._commit(actions)
        return before - after

    def fold(self, files: Sequence[TableFile], sort_by: Sequence[str], change: Change | None = None) -> None:
        """The files of one partition are one file, in order of ``sort_by``; readers see no change.

        Args:
            change: makes of the rows others that mean the same.
        """
        same = change is None
        added, _, _ = self._written(files, change or (lambda rows: rows), same, sort_by=sort_by)
        self._commit([*added, *(self._removed(one, same) for one in files)])

    def cut_log(self) -> int:
        """The log begins at the present version; how many of its older files are gone.

        Earlier versions can no longer be read, nor can what their commits said: statistics, predicates.
        """
        self._table.create_checkpoint()
        kept = self.version
        self._commit([])  # so that the log's newest commit is a file of its own, as every reader expects
        gone = 0
        for path in sorted((self.folder / LOG).rglob("*")):
            numbered = _COMMIT.match(path.name)
            if path.is_dir() or numbered is None or int(numbered.group(1)) > kept:
                continue
            if int(numbered.group(1)) == kept and ".checkpoint." in path.name and path.name[0] != ".":
                continue
            path.unlink(missing_ok=True)
            gone += 1
        return gone

    def vacuum(self, *, days: float, dry_run: bool) -> int:
        """Data files that no version has used for so many days are gone; how many."""
        gone = self._table.vacuum(
            retention_hours=round(24 * days), dry_run=dry_run, enforce_retention_duration=False, full=True
        )
        if not dry_run:
            self.look_again()
            for name in gone:
                checksum = self.folder / unquote(name)
                checksum.with_name(f".{checksum.name}.crc").unlink(missing_ok=True)
        return len(gone)

    def checkpoint(self) -> None:
        """A reader of the newest version needs few log files; expired ones are gone."""
        numbers = [int(one.name[:20]) for one in (self.folder / LOG).glob("*.checkpoint*.parquet")]
        if self.version - max(numbers, default=0) >= _COMMITS_A_CHECKPOINT:
            self._table.create_checkpoint()
            self._table.cleanup_metadata()

    def unused(self) -> list[Path]:
        """Data files in the folder that the newest version does not use: replaced, or never committed."""
        used = {one.path for one in self.files()}
        found = (
            one for one in self.folder.rglob("*.parquet") if LOG not in one.relative_to(self.folder).parts
        )
        return sorted(one for one in found if one not in used)

    def committed_names(self) -> set[str]:
        """Every data file that the log's JSON commits speak of."""
        found: set[str] = set()
        for path in (self.folder / LOG).glob("*.json"):
            for line in path.read_text(encoding="utf-8").splitlines():
                for kind in ("add", "remove", "cdc"):
                    action = json.loads(line).get(kind) if line else None
                    if action:
                        found.add(unquote(action["path"]))
        return found

    def _written(
        self, files: Sequence[TableFile], change: Change, keeps_rows: bool, sort_by: Sequence[str] = ()
    ) -> tuple[list[Any], int, int]:
        """Add actions (one or none) of a new file with the files' changed rows; rows before and after."""
        partition = files[0].partition
        schema = pa.schema([one for one in self.schema if one.name not in partition])
        parts: Iterable[pa.Table] = (part for file in files for part in self.shaped(file, schema.names))
        if sort_by:
            parts = [pa.concat_tables(parts).sort_by([(name, "ascending") for name in sort_by])]
        path = files[0].path.parent / f"part-{uuid4()}.{self._compression}.parquet"
        before = 0
        with NewFile(path, schema, compression=self._compression, statistics=self._statistics) as new:
            for part in parts:
                before += part.num_rows
                new.write(change(part))
        return new.actions(self.folder, partition, data_change=not keeps_rows), before, new.num_rows

    def _removed(self, file: TableFile, same: bool) -> Any:
        from deltalake.transaction import RemoveAction

        return RemoveAction(
            file.name,
            data_change=not same,
            deletion_timestamp=int(time.time() * 1000),
            partition_values=dict(file.partition),
            size=file.num_bytes,
        )

    def _commit(self, actions: list[Any]) -> None:
        deltalake = require("deltalake", purpose="Maintaining the lake")
        try:
            self._table.create_write_transaction(
                actions, "append", self._table.schema(), self.partitioned_by or None
            )
            self.look_again()
        except (OSError, deltalake.exceptions.DeltaError) as error:
            raise LakeError(
                f"{self.folder}: the commit failed ({error}). Nothing of it was kept; run the command again."
            ) from error


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)
