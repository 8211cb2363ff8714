"""An offline push: raw rows are appended to the behaviour source itself."""

from datetime import datetime

import pandas as pd
import pyarrow as pa

from qanchor_plugin.declare import SourceSpec
from qanchor_plugin.errors import DeclarationError, LakeError
from qanchor_plugin.extras import require
from qanchor_plugin.feast_ext import push_columns as C
from qanchor_plugin.feast_ext.push_rows import PushError, pushed_rows
from qanchor_plugin.feast_ext.push_view import PushedSource


def appendable(spec: SourceSpec) -> pa.Schema:
    """The columns of the Delta table that an offline push appends to.

    Raises:
        DeclarationError: the source is no Delta folder.
        LakeError: it cannot be read.
    """
    if not spec.path or spec.format != "delta":
        raise DeclarationError(
            f"source {spec.name!r} is no Delta folder (path {spec.path!r}, format {spec.format!r}), so a "
            "push to the offline store has nowhere to append. Push with to=PushMode.ONLINE and let the "
            "source's own writer bring the rows, or declare the source over a Delta folder."
        )
    return C.source_types(spec)


def append_to_source(source: PushedSource, table: pa.Table, *, now: datetime) -> int:
    """The rows stand in the behaviour source, in one commit; how many. The next refresh brings them.

    Args:
        table: exactly the source's columns.

    Raises:
        PushError: naming bad rows; nothing was appended. LakeError: the table cannot be written.
    """
    deltalake = require("deltalake", purpose="Pushing events to their source")
    frame = table.to_pandas()
    pushed_rows(source, frame, now=now)
    rows = _as_stored(source, frame)
    try:
        deltalake.write_deltalake(source.spec.path, rows, mode="append")
    except (OSError, pa.ArrowException, deltalake.exceptions.DeltaError) as error:
        raise LakeError(
            f"{rows.num_rows} rows could not be appended to source {source.spec.name!r} at "
            f"{source.spec.path} ({type(error).__name__}: {error}). Nothing was. Check that it "
            "is writable, then push again."
        ) from error
    return rows.num_rows


def _as_stored(source: PushedSource, frame: pd.DataFrame) -> pa.Table:
    columns = {}
    for field in appendable(source.spec):
        columns[field.name], wrong = C.converted(C.plain_values(frame[field.name]), field.type)
        if wrong:
            row, fault = next(iter(wrong.items()))
            raise PushError(
                f"push {source.push!r}: {len(wrong)} rows do not fit column {field.name!r}, the first is "
                f"row {row}: {fault}. Nothing was appended. Mend these, then push again."
            )
    return pa.table(columns)
