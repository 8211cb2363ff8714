"""One prefix as one file: a checked head, then tokens, positions, keys and values at round offsets."""

import hashlib
import json
import mmap
import struct
from typing import Any, BinaryIO

import numpy as np

from qanchor_plugin.prefix_store.entry import PrefixEntry, numpy_dtype
from qanchor_plugin.prefix_store.kv_entry import StoredKV, kv_from_blob, kv_head

MAGIC = b"qanchor1"
_START = struct.Struct("<8s16sQ")
_ALIGN = 64


def write_entry(entry: PrefixEntry, file: BinaryIO) -> int:
    """The entry's bytes are in the file; how many they are."""
    bodies = [np.ascontiguousarray(one).tobytes() for one in (entry.tokens, entry.positions)]
    if entry.kv is not None:
        bodies.append(kv_head(entry.kv) + entry.kv.kept.payload.tobytes())
    head = json.dumps(_facts(entry) | {"sizes": [len(one) for one in bodies]}, sort_keys=True).encode()
    parts = [_START.pack(MAGIC, _sum(head), len(head)) + head, *bodies]
    size = 0
    for part in parts:
        file.write(part + bytes(-len(part) % _ALIGN))
        size += len(part) + -len(part) % _ALIGN
    return size


def read_entry(file: BinaryIO) -> PrefixEntry | None:
    """What :func:`write_entry` wrote, mapped and not read, or None where its sizes cannot be right.

    Pages come in when they are touched, and are shared with every process that maps the file. The
    mapping is private and writable (torch wants it so): nothing is ever written through it.
    """
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if len(mapped) < _START.size:
        return None
    magic, head_sum, head_size = _START.unpack_from(mapped)
    head = mapped[_START.size : _START.size + head_size] if head_size <= len(mapped) else b""
    if magic != MAGIC or _sum(head) != head_sum:
        return None
    facts = json.loads(head)
    offsets, size = [], _rounded(_START.size + head_size)
    for one in facts["sizes"]:
        offsets.append(size)
        size += _rounded(one)
    if size != len(mapped):
        return None
    whole = np.frombuffer(mapped, np.uint8)
    bodies = [whole[at : at + one] for at, one in zip(offsets, facts["sizes"], strict=True)]
    return _entry(facts, bodies)


def _facts(entry: PrefixEntry) -> dict[str, Any]:
    return {
        "user": entry.user.hex(),
        "prefix_id": entry.prefix_id,
        "visible_digest": entry.visible_digest,
        "as_of": entry.as_of,
        "num_events": entry.num_events,
        "num_tokens": len(entry.tokens),
        "tokens_dtype": entry.tokens_dtype,
        "content_digest": entry.content_digest,
        "kv_scheme": None if entry.kv is None else entry.kv.kept.scheme,
    }


def _entry(facts: dict[str, Any], bodies: list[np.ndarray]) -> PrefixEntry | None:
    kv: StoredKV | None = None
    if facts["kv_scheme"] is not None:
        kv = kv_from_blob(facts["kv_scheme"], bodies[2])
        if kv is None:
            return None
    item = numpy_dtype(facts["tokens_dtype"])
    if item is None or not facts["num_tokens"]:
        return None
    return PrefixEntry(
        user=bytes.fromhex(facts["user"]),
        prefix_id=facts["prefix_id"],
        visible_digest=facts["visible_digest"],
        as_of=facts["as_of"],
        num_events=facts["num_events"],
        tokens=bodies[0].view(item).reshape(facts["num_tokens"], -1),
        tokens_dtype=facts["tokens_dtype"],
        positions=bodies[1].view("<i4"),
        content_digest=facts["content_digest"],
        kv=kv,
    )


def _sum(head: bytes) -> bytes:
    return hashlib.blake2b(head, digest_size=16).digest()


def _rounded(size: int) -> int:
    return size + -size % _ALIGN
