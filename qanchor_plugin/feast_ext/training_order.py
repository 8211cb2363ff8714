"""The answered chunks as one table in the rows' order, a file at a time, on this machine.

Spark would take each of a row's some thousand numbers in hand to read, shuffle and write it; Arrow moves them
as blocks.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

ROWS_PER_FILE = 10_000
_ROWS_READ_TOGETHER = 4_096
_LAID_OUT = "_rows.arrow"

Int64 = npt.NDArray[np.int64]


def write_in_order(
    files: Sequence[str],
    place: Path,
    *,
    columns: Sequence[str],
    number: str,
    tell: Callable[[int], None] = lambda _: None,
) -> None:
    """``place`` holds the rows of ``files`` by their number, in files of ``ROWS_PER_FILE`` that sort by name.

    Memory holds some files' rows however many there are; ``place`` needs room for one more copy meanwhile.

    Args:
        files: parquet of one schema.
        place: a folder that is not there yet.
        columns: those that are kept, in order.
        number: the column to order by; no two rows have the same.
        tell: is called with how many more rows stand.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    place.mkdir(parents=True)
    laid_out = place / _LAID_OUT
    order = np.argsort(_lay_out(files, laid_out, columns, number))
    with pa.memory_map(str(laid_out)) as mapped, ThreadPoolExecutor(os.cpu_count()) as threads:
        reader = pa.ipc.open_file(mapped)
        batches = [reader.get_batch(one) for one in range(reader.num_record_batches)]
        write = partial(_write, place, batches, order)
        for written in threads.map(write, range(-(-len(order) // ROWS_PER_FILE))):
            tell(written)
    laid_out.unlink()


def _lay_out(files: Sequence[str], laid_out: Path, columns: Sequence[str], number: str) -> Int64:
    """The rows' numbers, as the rows stand in ``laid_out`` one after the other, uncompressed."""
    found = pads.dataset(list(files), format="parquet")
    schema = pa.schema([found.schema.field(name).remove_metadata() for name in columns])
    numbers = []
    batches = found.to_batches(
        columns=[*columns, number],
        batch_size=_ROWS_READ_TOGETHER,
        batch_readahead=os.cpu_count() or 1,
        fragment_readahead=1,
    )
    with pa.ipc.new_file(str(laid_out), schema) as writer:
        for batch in batches:
            if batch.num_rows:
                numbers.append(batch.column(number).to_numpy())
                writer.write_batch(pa.record_batch(batch.columns[: len(columns)], schema=schema))
    return np.concatenate([np.zeros(0, np.int64), *numbers])


def _write(place: Path, batches: Sequence[pa.RecordBatch], order: Int64, file: int) -> int:
    """One file of the table; how many rows it has."""
    rows = _rows(batches, order[file * ROWS_PER_FILE : (file + 1) * ROWS_PER_FILE])
    named = [field.name for field in rows.schema if not pa.types.is_list(field.type)]
    pq.write_table(rows, place / f"part-{file:05d}.parquet", use_dictionary=named)
    return rows.num_rows


def _rows(batches: Sequence[pa.RecordBatch], wanted: Int64) -> pa.Table:
    """The rows at these places, counted through all batches."""
    begins = np.cumsum([0, *(one.num_rows for one in batches)])[:-1]
    holder = np.searchsorted(begins, wanted, side="right") - 1
    pieces, turn = [], np.argsort(holder, kind="stable")
    for number in np.unique(holder):
        inside = wanted[holder == number] - begins[number]
        pieces.append(batches[number].take(pa.array(inside)))
    return pa.Table.from_batches(pieces).take(pa.array(np.argsort(turn)))
