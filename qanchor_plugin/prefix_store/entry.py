"""One stored prefix with its identity and content digest, as a record and as a ``user_prefixes`` row."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin import schemas as S
from qanchor_plugin.engine.kv import KeptKV
from qanchor_plugin.prefix_store.kv_entry import StoredKV, kv_blob, kv_from_blob, kv_identity, stored_kv


@dataclass(frozen=True, kw_only=True)
class PrefixEntry:
    """The stored soft tokens of one user, and keys and values where they pay; checked before they are used.

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
        kv: keys and values with an identity and a digest of their own, or None.
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
    kv: StoredKV | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes held by the arrays."""
        kv = 0 if self.kv is None else self.kv.size_bytes
        return self.tokens.nbytes + self.positions.nbytes + kv

    def with_kv(self, kept: KeptKV | None) -> "PrefixEntry":
        """The same with keys and values made for it now, or without any."""
        if kept is None:
            return replace(self, kv=None)
        made = stored_kv(
            user=self.user, prefix_id=self.prefix_id, content_digest=self.content_digest, kept=kept
        )
        return replace(self, kv=made)

    def kv_fault(self, *, kv_digest: str) -> str | None:
        """Why the keys and values may not be used: ``foreign``, ``corrupt``, or None where they may.

        Args:
            kv_digest: ``EngineIdentity.kv_digest`` of the engine that asks.
        """
        if self.kv is None:
            return None
        kept = self.kv.kept
        mine = kv_identity(
            user=self.user, prefix_id=self.prefix_id, content_digest=self.content_digest, kept=kept
        )
        if (self.kv.identity, kept.kv_digest, kept.num_tokens) != (mine, kv_digest, len(self.tokens)):
            return "foreign"
        return None if self.kv.is_whole() else "corrupt"

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
        S.KV_SCHEME: None if entry.kv is None else entry.kv.kept.scheme,
        S.KV: None if entry.kv is None else kv_blob(entry.kv),
    }


def entry_from_row(row: Mapping[str, Any]) -> PrefixEntry | None:
    """The entry that :func:`entry_to_row` wrote, or None when its sizes cannot be right.

    Args:
        row: as read; ``as_of`` in microseconds since 1970 UTC. The arrays are copies, writable as torch
            wants them. ``kv_scheme`` and ``kv`` may be left out.
    """
    dtype = row[S.TOKENS_DTYPE]
    item = numpy_dtype(dtype)
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
        kv=_kv_of(row),
    )


def _kv_of(row: Mapping[str, Any]) -> StoredKV | None:
    """Keys and values of a row; where they cannot be read, an empty payload that no check lets through."""
    blob = row.get(S.KV)
    if blob is None:
        return None
    found = kv_from_blob(row.get(S.KV_SCHEME), np.frombuffer(blob, np.uint8).copy())
    return found or StoredKV(kept=_NOTHING, identity="", digest="")


_NOTHING = KeptKV(scheme="", num_tokens=0, kv_digest="", payload=np.zeros(0, np.uint8))


def _raw(values: npt.NDArray[Any] | bytes) -> bytes:
    return values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()


def numpy_dtype(name: str) -> np.dtype[Any] | None:
    known = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
    return np.dtype(known[name]) if name in known else None
