"""Stored sequence rows, folded into one history a user."""

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.sequence.history import Events, UserHistory


def fold_users(sequences: pa.Table, profile_rows: pa.Table | None, profile: Profile) -> Iterator[UserHistory]:
    """Every user that has a row of one of the profile's modalities, ascending by user bytes.

    Args:
        sequences: rows of ``behaviour_sequences`` (other modalities' rows are passed over).
        profile_rows: rows of ``profile_rows``, or None.
        profile: whose modalities are read, matched by their sequence digest.
    """
    parts: dict[bytes, dict[str, list[Events]]] = {}
    keys: dict[bytes, str] = {}
    for modality in profile.modalities:
        table = sequences if modality.kind == "events" else profile_rows
        if table is None or table.num_rows == 0:
            continue
        table = table.filter(pc.equal(table[S.MODALITY_DIGEST], modality.sequence_digest))
        table = table.combine_chunks()
        rows = _sequence_rows(table, modality) if modality.kind == "events" else _tabular_rows(table)
        users, user_keys = table[S.USER].to_pylist(), table[S.USER_KEY].to_pylist()
        for user, user_key, events in zip(users, user_keys, rows, strict=True):
            parts.setdefault(user, {}).setdefault(modality.name, []).append(events)
            keys[user] = user_key
    for user in sorted(parts):
        folded = {name: concatenated(events) for name, events in parts[user].items()}
        yield UserHistory(user=user, user_key=keys[user], events=folded)


def concatenated(parts: list[Events]) -> Events:
    """All events of the parts, in canonical order."""
    joined = Events(
        event_at=np.concatenate([part.event_at for part in parts]),
        known_at=np.concatenate([part.known_at for part in parts]),
        text_id=np.concatenate([part.text_id for part in parts]),
        groups=np.concatenate([part.groups for part in parts]),
        amounts=np.concatenate([part.amounts for part in parts]),
    )
    return joined.sorted()


def _sequence_rows(table: pa.Table, modality: Modality) -> Iterator[Events]:
    num_groups, num_amounts = len(modality.group_by), len(modality.amounts)
    lengths = pc.list_value_length(table[S.EVENT_AT]).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    event_at, known_at = _instants(table[S.EVENT_AT]), _instants(table[S.KNOWN_AT])
    text_id = _bytes_matrix(_flat(table[S.TEXT_ID]), TEXT_ID_BYTES)
    groups = _bytes_matrix(_flat(table[S.GROUPS]), TEXT_ID_BYTES * num_groups)
    amounts = _flat(_flat(table[S.AMOUNTS])).to_numpy(zero_copy_only=False).astype(np.float64)
    total = len(event_at)
    groups = groups.reshape(total, num_groups, TEXT_ID_BYTES)
    amounts = amounts.reshape(total, num_amounts)
    for start, end in itertools.pairwise([0, *ends.tolist()]):
        rows = slice(start, end)
        yield Events(
            event_at=event_at[rows],
            known_at=known_at[rows],
            text_id=text_id[rows],
            groups=groups[rows],
            amounts=amounts[rows],
        )


def _tabular_rows(table: pa.Table) -> Iterator[Events]:
    event_at = _micros(table[S.EVENT_AT].combine_chunks())
    known_at = _micros(table[S.KNOWN_AT].combine_chunks())
    text_id = _bytes_matrix(table[S.TEXT_ID].combine_chunks(), TEXT_ID_BYTES)
    for row in range(table.num_rows):
        one = slice(row, row + 1)
        yield Events(
            event_at=event_at[one],
            known_at=known_at[one],
            text_id=text_id[one],
            groups=np.zeros((1, 0, TEXT_ID_BYTES), np.uint8),
            amounts=np.zeros((1, 0), np.float64),
        )


def _flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.flatten()


def _instants(column: pa.ChunkedArray) -> np.ndarray:
    return _micros(_flat(column))


def _micros(array: pa.Array) -> np.ndarray:
    return array.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)


def _bytes_matrix(array: pa.Array, width: int) -> np.ndarray:
    """(N, width) uint8 of a binary array whose every value has ``width`` bytes."""
    if width == 0:
        return np.zeros((len(array), 0), np.uint8)
    if len(array) == 0:
        return np.zeros((0, width), np.uint8)
    sizes = pc.binary_length(array)
    if array.null_count or pc.min(sizes).as_py() != width or pc.max(sizes).as_py() != width:
        raise InputDataError(
            f"stored ids are not all {width} bytes wide; the lake's sequences were written by another "
            "layout. Rebuild them: qanchor refresh --full."
        )
    joined = pa.array(array.cast(pa.binary(width)))
    return np.frombuffer(joined.buffers()[1], np.uint8).reshape(-1, width)[
        joined.offset : joined.offset + len(joined)
    ]
