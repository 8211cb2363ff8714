"""One stored prefix with its identity and content digest, as a record and as a ``user_prefixes`` row."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin import schemas as S


@dataclass(frozen=True, kw_only=True)
class PrefixEntry:
    """The stored soft tokens of one user, checked before they are used.

    Attributes:
        user: Feast's serialised entity key.
        prefix_id: ``identity.prefix_identity`` of what the tokens were made from.
        visible_digest: digest of the events they were made from.
        as_of: newest event seen, microseconds since 1970 UTC; None without one.
        num_events: visible events.
        tokens: (L, width), ``tokens_dtype``; bfloat16 is carried as uint16 bit patterns.
        tokens_dtype: ``float32``, ``float16`` or ``bfloat16``.
        positions: (L,) int32.
        content_digest: :func:`content_digest` of all the above at the time of writing.
    """

    user: bytes
    prefix_id: str
    visible_digest: str
    as_of: int | None
    num_events: int
    tokens: npt.NDArray[Any]
    tokens_dtype: str
    positions: npt.NDArray[np.int32]
    content_digest: str

    @property
    def size_bytes(self) -> int:
        """Bytes held by the arrays."""
        return self.tokens.nbytes + self.positions.nbytes

    def is_sound(self, *, user: bytes, prefix_id: str) -> bool:
        """Whether this is the asked user's prefix of the asked identity, byte for byte as written."""
        if self.user != user or self.prefix_id != prefix_id:
            return False
        return self.content_digest == content_digest(
            user=self.user,
            prefix_id=self.prefix_id,
            tokens_dtype=self.tokens_dtype,
            tokens=self.tokens,
            positions=self.positions,
        )


def content_digest(
    *,
    user: bytes,
    prefix_id: str,
    tokens_dtype: str,
    tokens: npt.NDArray[Any] | bytes,
    positions: npt.NDArray[np.int32] | bytes,
) -> str:
    """32 hex characters over the owner, the identity and the very bytes of a prefix."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in (user, prefix_id.encode(), tokens_dtype.encode(), _raw(tokens), _raw(positions)):
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.hexdigest()


def make_entry(
    *,
    user: bytes,
    prefix_id: str,
    visible_digest: str,
    as_of: int | None,
    num_events: int,
    tokens: npt.NDArray[Any],
    tokens_dtype: str,
    positions: npt.NDArray[np.int32],
) -> PrefixEntry:
    """An entry that is sound now: its content digest is taken of what was given."""
    return PrefixEntry(
        user=user,
        prefix_id=prefix_id,
        visible_digest=visible_digest,
        as_of=as_of,
        num_events=num_events,
        tokens=tokens,
        tokens_dtype=tokens_dtype,
        positions=positions,
        content_digest=content_digest(
            user=user, prefix_id=prefix_id, tokens_dtype=tokens_dtype, tokens=tokens, positions=positions
        ),
    )


def entry_to_row(entry: PrefixEntry) -> dict[str, Any]:
    """The columns of ``user_prefixes`` that come from a prefix.

    The caller adds profile, user_key, user_bucket, batch and cutoff.
    """
    return {
        S.USER: entry.user,
        S.PREFIX_ID: entry.prefix_id,
        S.VISIBLE_DIGEST: entry.visible_digest,
        S.AS_OF: entry.as_of,
        S.NUM_EVENTS: entry.num_events,
        S.NUM_TOKENS: len(entry.tokens),
        S.TOKENS_DTYPE: entry.tokens_dtype,
        S.TOKENS: _raw(entry.tokens),
        S.POSITIONS: _raw(entry.positions),
        S.CONTENT_DIGEST: entry.content_digest,
        S.KV_SCHEME: None,
        S.KV: None,
    }


def entry_from_row(row: Mapping[str, Any]) -> PrefixEntry | None:
    """The entry that :func:`entry_to_row` wrote, or None when its sizes cannot be right.

    Args:
        row: as read; ``as_of`` in microseconds since 1970 UTC. The arrays are copies, writable as torch
            wants them.
    """
    dtype = row[S.TOKENS_DTYPE]
    item = _numpy_dtype(dtype)
    num_tokens = row[S.NUM_TOKENS]
    if item is None or not num_tokens or len(row[S.TOKENS]) % (num_tokens * item.itemsize):
        return None
    if len(row[S.POSITIONS]) != 4 * num_tokens:
        return None
    return PrefixEntry(
        user=row[S.USER],
        prefix_id=row[S.PREFIX_ID],
        visible_digest=row[S.VISIBLE_DIGEST],
        as_of=row[S.AS_OF],
        num_events=row[S.NUM_EVENTS],
        tokens=np.frombuffer(row[S.TOKENS], item).reshape(num_tokens, -1).copy(),
        tokens_dtype=dtype,
        positions=np.frombuffer(row[S.POSITIONS], "<i4").copy(),
        content_digest=row[S.CONTENT_DIGEST],
    )


def _raw(values: npt.NDArray[Any] | bytes) -> bytes:
    return values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()


def _numpy_dtype(name: str) -> np.dtype[Any] | None:
    known = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
    return np.dtype(known[name]) if name in known else None
