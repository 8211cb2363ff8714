"""Which event texts the lake's users still name: texts are kept by reference count."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qanchor_plugin import schemas as S
from qanchor_plugin.backend.vectors import absent_from
from qanchor_plugin.engine.event_vectors import CURRENT, VectorSnapshot, write_snapshot
from qanchor_plugin.errors import LakeError
from qanchor_plugin.identity import TEXT_ID_BYTES
from spark_jobs.table_files import TableFiles

SNAPSHOTS = "_vectors"


def named_texts(tables: Iterable[TableFiles]) -> set[bytes]:
    """Ids of every text that a row of a user names, by event or by group."""
    found: set[bytes] = set()
    for table in tables:
        columns = [name for name in (S.TEXT_ID, S.GROUPS) if name in table.schema.names]
        for file in table.files() if columns else ():
            for rows in table.batches(file, columns):
                for name in rows.column_names:
                    found.update(_ids(rows[name]))
    return found


def unnamed(table: TableFiles, named: set[bytes]) -> pa.Array:
    """Ids of the table's rows that are in no row of a user."""
    gone: set[bytes] = set()
    for file in table.files():
        for rows in table.batches(file, [S.TEXT_ID]):
            gone.update(one for one in pc.unique(rows[S.TEXT_ID]).to_pylist() if one not in named)
    return pa.array(sorted(gone), table.schema.field(S.TEXT_ID).type)


def renew_snapshots(lake: Path, named: set[bytes]) -> int:
    """Every encoder's only snapshot holds vectors of named texts alone; how many folders are gone."""
    removed = 0
    for folder in sorted(one for one in (lake / SNAPSHOTS).glob("*") if one.is_dir()):
        current = _of_named(folder, named)
        if current is None:
            (folder / CURRENT).unlink(missing_ok=True)
        for old in [one for one in folder.iterdir() if one.is_dir() and one != current]:
            shutil.rmtree(old)
            removed += 1
    return removed


def _ids(column: pa.ChunkedArray) -> list[bytes]:
    """Distinct ids in a column of ids, of lists of ids, or of lists of several ids joined."""
    flat = pc.list_flatten(column) if _is_list(column.type) else column
    joined = b"".join(one for one in pc.unique(flat).to_pylist() if one)
    size = len(joined) // TEXT_ID_BYTES
    each = pa.FixedSizeBinaryArray.from_buffers(pa.binary(TEXT_ID_BYTES), size, [None, pa.py_buffer(joined)])
    return pc.unique(each).to_pylist()


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _of_named(folder: Path, named: set[bytes]) -> Path | None:
    """The folder of the snapshot that stands now; None where no named text has a vector."""
    try:
        snapshot = VectorSnapshot.open(folder)
    except LakeError:  # absent or damaged: the next refresh writes it from the table
        return None
    ids = np.frombuffer(b"".join(sorted(named)), np.uint8).reshape(len(named), TEXT_ID_BYTES)
    ids = ids[~absent_from(snapshot, ids)] if len(ids) else ids
    if len(ids) == snapshot.num_texts:
        return snapshot.folder
    if not len(ids):
        return None
    return write_snapshot(folder, encoder_id=folder.name, ids=ids, vectors=snapshot.lookup(ids))
