"""Small literal prefixes, with and without keys and values."""

import numpy as np

from qanchor_plugin.engine.kv import KeptKV
from qanchor_plugin.prefix_store import PrefixEntry, make_entry

ENGINE = "e" * 32


def entry(user: bytes = b"u1", prefix_id: str = "p1", fill: float = 1.0, num_tokens: int = 3) -> PrefixEntry:
    """A prefix of 3 tokens, 4 wide."""
    return make_entry(
        user=user,
        prefix_id=prefix_id,
        visible_digest="v",
        as_of=1_500_000_000_000_000,
        num_events=2,
        tokens=np.full((num_tokens, 4), fill, np.float32),
        tokens_dtype="float32",
        positions=np.arange(num_tokens, dtype=np.int32),
    )


def kept(
    *, num_bytes: int = 64, scheme: str = "int8", num_tokens: int = 3, kv_digest: str = ENGINE, fill: int = 7
) -> KeptKV:
    """Keys and values whose every byte is ``fill``."""
    payload = np.full(num_bytes, fill, np.uint8)
    return KeptKV(scheme=scheme, num_tokens=num_tokens, kv_digest=kv_digest, payload=payload)
