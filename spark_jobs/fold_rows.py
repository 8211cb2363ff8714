"""Several batches of a user's month as one row: what ``behaviour_sequences`` holds, in fewer rows."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qanchor_plugin import schemas as S
from spark_jobs.sources import Batch

_ARRAYS = (S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID, S.GROUPS, S.AMOUNTS)
_ORDER = (S.EVENT_AT, S.TEXT_ID, S.GROUPS, S.KNOWN_AT)
_GROUP = "__group"


def folded(rows: pa.Table) -> pa.Table:
    """One row for each modality, user and source table, its events in order; batches become their range.

    Args:
        rows: of one month and bucket, columns of ``behaviour_sequences`` but those of the partition.
    """
    if not rows.num_rows:
        return rows
    groups, first, batches = _groups(rows)
    order = pa.array(np.argsort(groups, kind="stable"))
    rows, groups = rows.take(order).combine_chunks(), np.sort(groups)
    counts = np.asarray(pc.list_value_length(rows[S.EVENT_AT]))
    events = pa.table(
        {_GROUP: np.repeat(groups, counts), **{name: _flat(rows[name]) for name in _ARRAYS}}
    ).sort_by([(name, "ascending") for name in (_GROUP, *_ORDER)])
    sizes = np.bincount(groups, weights=counts, minlength=len(first)).astype(np.int32)
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    made = {
        name: pa.ListArray.from_arrays(offsets, events[name].combine_chunks()).cast(
            rows.schema.field(name).type
        )
        for name in _ARRAYS
    }
    made |= {S.BATCH: pa.array(batches), S.NUM_EVENTS: pa.array(sizes)}
    kept = rows.take(pa.array(np.searchsorted(groups, np.arange(len(first)))))
    columns = [made.get(field.name, kept[field.name]) for field in rows.schema]
    return pa.Table.from_arrays(columns, schema=rows.schema)


def _groups(rows: pa.Table) -> tuple[np.ndarray, list[int], list[str]]:
    """The group of each row, each group's first row, and the batch that its row will have."""
    batches = rows[S.BATCH].to_pylist()
    tables = [batch.partition(".")[0] for batch in batches]
    keys = zip(rows[S.MODALITY_DIGEST].to_pylist(), rows[S.USER].to_pylist(), tables, strict=True)
    number: dict[tuple[str, bytes, str], int] = {}
    groups = np.array([number.setdefault(key, len(number)) for key in keys])
    members: list[list[int]] = [[] for _ in number]
    for row, group in enumerate(groups):
        members[group].append(row)
    return groups, [one[0] for one in members], [_range({batches[row] for row in one}) for one in members]


def _range(names: set[str]) -> str:
    if len(names) == 1:
        return next(iter(names))
    batches = [Batch.parse(name) for name in names]
    first, last = min(one.first for one in batches), max(one.last for one in batches)
    return str(Batch(table=batches[0].table, first=first, last=last))


def _flat(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.flatten()
