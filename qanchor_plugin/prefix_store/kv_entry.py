"""Stored keys and values with their owner's identity and their bytes' digest, as a record and as one blob."""

import hashlib
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qanchor_plugin.engine.kv import KV_LAYOUT, SCHEMES, KeptKV
from qanchor_plugin.identity import digest

MAGIC = b"qanchKV1"
_HEAD = struct.Struct("<8s16s16s16sQ")
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredKV:
    """What a tier holds of one user's keys and values.

    Attributes:
        kept: scheme, length, engine and bytes.
        identity: :func:`kv_identity` at the time of writing.
        digest: :func:`payload_digest` at the time of writing.
    """

    kept: KeptKV
    identity: str
    digest: str

    @property
    def size_bytes(self) -> int:
        """Bytes of the payload."""
        return self.kept.payload.nbytes

    def is_whole(self) -> bool:
        """Whether the bytes are those that were written."""
        return self.digest == payload_digest(self.kept.payload)


def kv_identity(*, user: bytes, prefix_id: str, content_digest: str, kept: KeptKV) -> str:
    """32 hex characters over all that makes these keys this user's and no other's.

    Args:
        user: whose.
        prefix_id: data version, profile, encoder, hierarchy, tokenizer, layout, RoPE and time.
        content_digest: of the soft tokens and positions, byte for byte.
        kept: its engine (backbone's weights with any adapter, architecture, dtype), scheme and length.
    """
    return digest(
        "kv-entry/1", KV_LAYOUT, user, prefix_id, content_digest, kept.kv_digest, kept.scheme, kept.num_tokens
    )


def payload_digest(payload: npt.NDArray[np.uint8]) -> str:
    """32 hex characters: BLAKE2b over the CRC-32 of every 64 KiB.

    Damage is what it must find, at the speed of memory: a load is checked each time. Who owns the bytes
    is :func:`kv_identity`'s question.
    """
    view = payload.data
    sums = [zlib.crc32(view[start : start + _CHUNK]) for start in range(0, len(view), _CHUNK)]
    body = struct.pack(f"<Q{len(sums)}I", len(view), *sums)
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def stored_kv(*, user: bytes, prefix_id: str, content_digest: str, kept: KeptKV) -> StoredKV:
    """The record of keys and values made now for this prefix."""
    return StoredKV(
        kept=kept,
        identity=kv_identity(user=user, prefix_id=prefix_id, content_digest=content_digest, kept=kept),
        digest=payload_digest(kept.payload),
    )


def kv_head(kv: StoredKV) -> bytes:
    """The 64 bytes that stand before a stored payload."""
    kept = kv.kept
    digests = (bytes.fromhex(one) for one in (kv.identity, kv.digest, kept.kv_digest))
    return _HEAD.pack(MAGIC, *digests, kept.num_tokens)


def kv_blob(kv: StoredKV) -> bytes:
    """Head and payload, as ``user_prefixes.kv`` holds them; the scheme stands beside it."""
    return kv_head(kv) + kv.kept.payload.tobytes()


def kv_from_blob(scheme: str | None, blob: npt.NDArray[np.uint8]) -> StoredKV | None:
    """What :func:`kv_blob` wrote, or None where it cannot be.

    Args:
        scheme: as stored beside the blob.
        blob: (N,) uint8, writable; the payload is a view of it.
    """
    if scheme not in SCHEMES or len(blob) <= _HEAD.size:
        return None
    magic, identity, body, engine, num_tokens = _HEAD.unpack(blob[: _HEAD.size].tobytes())
    if magic != MAGIC:
        return None
    kept = KeptKV(
        scheme=str(scheme), num_tokens=num_tokens, kv_digest=engine.hex(), payload=blob[_HEAD.size :]
    )
    return StoredKV(kept=kept, identity=identity.hex(), digest=body.hex())


HEAD_BYTES = _HEAD.size
"""What a blob takes over its payload."""
