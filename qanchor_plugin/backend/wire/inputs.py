"""The record batches that a caller sends: users' keys, or their soft tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.prefix_store.entry import PrefixEntry, entry_from_row, entry_to_row

USERS = pa.schema([pa.field(S.USER, pa.binary(), nullable=False)])

_PREFIX_COLUMNS: list[tuple[str, pa.DataType]] = [
    (S.USER, pa.binary()),
    (S.PREFIX_ID, pa.string()),
    (S.VISIBLE_DIGEST, pa.string()),
    (S.AS_OF, pa.int64()),
    (S.NUM_EVENTS, pa.int64()),
    (S.NUM_TOKENS, pa.int64()),
    (S.TOKENS_DTYPE, pa.string()),
    (S.TOKENS, pa.binary()),
    (S.POSITIONS, pa.binary()),
    (S.CONTENT_DIGEST, pa.string()),
    (S.CUTOFF, pa.int64()),
]
PREFIXES = pa.schema([pa.field(name, kind, nullable=name == S.AS_OF) for name, kind in _PREFIX_COLUMNS])
"""``as_of`` and ``cutoff``: microseconds since 1970 UTC."""


@dataclass(frozen=True, kw_only=True)
class PrefixRow:
    """A prefix that came over the wire, byte for byte as it was made, and the instant to ask it at."""

    entry: PrefixEntry
    cutoff: int


def users_batch(users: Sequence[bytes]) -> pa.RecordBatch:
    """The rows of kind ``users``."""
    return pa.record_batch([pa.array(users, pa.binary())], schema=USERS)


def read_users(batch: pa.RecordBatch) -> list[bytes]:
    """The keys of one batch.

    Raises:
        InputDataError: another schema, or a null.
    """
    _check(batch, USERS)
    return batch.column(0).to_pylist()


def prefix_batch(entries: Sequence[PrefixEntry], cutoffs: Sequence[int]) -> pa.RecordBatch:
    """The rows of kind ``prefixes``: a batch must stay under 2 GB of tokens."""
    rows: list[dict[str, Any]] = [
        {**entry_to_row(entry), S.CUTOFF: cutoff} for entry, cutoff in zip(entries, cutoffs, strict=True)
    ]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in PREFIXES]
    return pa.record_batch(columns, schema=PREFIXES)


def read_prefixes(batch: pa.RecordBatch) -> list[PrefixRow]:
    """The prefixes of one batch, each checked against its content digest.

    Raises:
        InputDataError: another schema, a null, sizes that cannot be right, or bytes changed on the way.
    """
    _check(batch, PREFIXES)
    found = []
    for row in batch.to_pylist():
        entry = entry_from_row(row) if row[S.NUM_TOKENS] > 0 and row[S.NUM_EVENTS] >= 0 else None
        if entry is None or not entry.is_sound(user=row[S.USER], prefix_id=row[S.PREFIX_ID]):
            raise InputDataError(
                "a prefix's bytes are not those that its content digest was taken of. Send it again."
            )
        found.append(PrefixRow(entry=entry, cutoff=row[S.CUTOFF]))
    return found


def _check(batch: pa.RecordBatch, schema: pa.Schema) -> None:
    if not batch.schema.equals(schema):
        raise InputDataError(
            f"the rows have columns {batch.schema.names}, not those of {schema.names} with their types. "
            "Run the same release of qanchor on both sides."
        )
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputDataError(f"the rows are not sound Arrow data ({error}). Send them again.") from error
    for field, column in zip(schema, batch.columns, strict=True):
        if column.null_count and not field.nullable:
            raise InputDataError(f"column {field.name!r} has {column.null_count} nulls; none is accepted.")
