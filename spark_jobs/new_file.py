"""One Parquet file of a Delta table, written a part at a time in the jobs' own layout."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROW_GROUP_BYTES = 1 << 20
_WITHOUT_DICTIONARY = ("vector", "tokens", "kv", "positions")


class NewFile:
    """Rows written so far; a file that got none leaves nothing.

    Args:
        path: of the file.
        schema: the table's columns but the partition's.
        compression: ``snappy`` or ``none``.
        statistics: columns whose least and greatest values the log may hold (of strings alone).
    """

    def __init__(self, path: Path, schema: pa.Schema, *, compression: str, statistics: Sequence[str]) -> None:
        self.num_rows = 0
        self._path, self._schema, self._compression = path, schema, compression
        self._writer: pq.ParquetWriter | None = None
        strings = {one.name for one in schema if pa.types.is_string(one.type)}
        self._statistics = [name for name in statistics if name in strings]
        self._least: dict[str, str] = {}
        self._greatest: dict[str, str] = {}

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """The rows are in the file; a row group is about a megabyte."""
        if not rows.num_rows:
            return
        if self._writer is None:
            plain = [name for name in self._schema.names if name not in _WITHOUT_DICTIONARY]
            self._writer = pq.ParquetWriter(
                self._path, self._schema, compression=self._compression, use_dictionary=plain
            )
        self._writer.write_table(
            rows, row_group_size=max(1, ROW_GROUP_BYTES * rows.num_rows // max(1, rows.nbytes))
        )
        self.num_rows += rows.num_rows
        for name in self._statistics:
            bounds = pc.min_max(rows[name]).as_py()
            if bounds["min"] is not None:
                self._least[name] = min(self._least.get(name, bounds["min"]), bounds["min"])
                self._greatest[name] = max(self._greatest.get(name, bounds["max"]), bounds["max"])

    def actions(self, table: Path, partition: Mapping[str, str | None], *, data_change: bool) -> list[Any]:
        """What the log says of the closed file; nothing where it has no row."""
        from deltalake.transaction import AddAction

        if not self.num_rows:
            return []
        stats = {"numRecords": self.num_rows}
        bounds = {"minValues": self._least, "maxValues": self._greatest} if self._least else {}
        return [
            AddAction(
                path=quote(str(self._path.relative_to(table)), safe="/=-_.~"),
                size=self._path.stat().st_size,
                partition_values=dict(partition),
                modification_time=int(time.time() * 1000),
                data_change=data_change,
                stats=json.dumps(stats | bounds),
            )
        ]


def cast(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with just these columns and types; a column that they lack is null."""
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
