"""Digests: the identity of every cached or stored thing.

Whatever changes the bytes of a thing is in its key. All digests are BLAKE2b.
"""

import hashlib
import json
import zlib
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any

TEXT_ID_BYTES = 16
"""Bytes of a text id: a 128-bit digest needs no collision story at 1e9 texts."""

_encoded = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
"""Made once: json.dumps makes an encoder a call, and an id has five parts."""

_JSON: dict[type, Callable[[Any], str]] = {str: encode_basestring, int: str}
"""What the encoder does with most parts, without its way there."""

_BYTES = (bytes, bytearray, memoryview)

SCENARIO_DIGEST_CHARS = 16
"""Hex characters of a scenario identity at the head of every embedding id."""


def text_id(text: str) -> bytes:
    """The 16-byte identity of an event text: BLAKE2b of its UTF-8 bytes."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=TEXT_ID_BYTES).digest()


def user_bucket(user: bytes, num_buckets: int) -> int:
    """The partition of a user: CRC-32 of the key's bytes modulo ``num_buckets`` (Spark's crc32 agrees)."""
    return zlib.crc32(user) % num_buckets


def digest(*parts: Any) -> str:
    """A 32-character hex digest of JSON-like parts and byte strings, in order.

    Mappings are read with sorted keys. Two different part lists never share an encoding:
    every part is written with its kind and its length.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, _BYTES):
            kind, body = b"b", bytes(part)
        else:
            kind, body = b"j", _JSON.get(type(part), _encoded)(part).encode("utf-8")
        hasher.update(kind + len(body).to_bytes(8, "little"))
        hasher.update(body)
    return hasher.hexdigest()


def scenario_identity(
    *, profile_digest: str, engine_digest: str, query: str, soft_prompt_digest: str | None
) -> str:
    """What stays the same for every user of one scenario version (32 hex characters).

    Two stored vectors may be compared only when their scenario identity agrees.
    """
    return digest("scenario", profile_digest, engine_digest, query, soft_prompt_digest)


def prefix_identity(*, profile_digest: str, prefix_digest: str, visible_digest: str) -> str:
    """The identity of one user's prefix (32 hex characters).

    Args:
        profile_digest: digest of the declared profile.
        prefix_digest: the engine's digest of everything that shapes a prefix: event encoder,
            hierarchy weights, tokenizer, template, dtype, layout, RoPE and time configuration.
        visible_digest: digest of the events visible at the cutoff.
    """
    return digest("prefix", profile_digest, prefix_digest, visible_digest)


def embedding_id(*, scenario: str, prefix: str, suffix_day: int | None) -> str:
    """The identity of one embedding: ``<scenario identity, 16 chars>-<inputs, 16 chars>``.

    Args:
        scenario: :func:`scenario_identity` (32 hex characters).
        prefix: :func:`prefix_identity`.
        suffix_day: the cutoff's day number for an engine whose suffix knows the time, else None.
    """
    inputs = digest("embedding", scenario, prefix, suffix_day)
    return f"{scenario[:SCENARIO_DIGEST_CHARS]}-{inputs[:SCENARIO_DIGEST_CHARS]}"


def is_of_scenario(embedding: str | None, scenario: str) -> bool:
    """Whether a stored embedding id was made by this very scenario version."""
    return embedding is not None and embedding.partition("-")[0] == scenario[:SCENARIO_DIGEST_CHARS]
