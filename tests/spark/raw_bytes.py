"""Every byte below a folder, Parquet columns decompressed: what a search for a forgotten user reads."""

import base64
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def found_in(folder: Path, needles: Sequence[bytes]) -> dict[str, list[bytes]]:
    """Files, relative to the folder, that hold any of the needles, and which."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        bodies = list(_bodies(path))
        held = [needle for needle in needles if any(needle in body for body in bodies)]
        if held:
            found[str(path.relative_to(folder))] = held
    return found


def forms(user: bytes, name: str, texts: Sequence[str] = ()) -> list[bytes]:
    """How a user and their own texts can stand in a file."""
    keys = [user, base64.b64encode(user), user.hex().encode(), user.hex().upper().encode()]
    names = [name.encode(), json.dumps(name)[1:-1].encode()]
    return [*keys, *names, *(text.encode() for text in texts)]


def _bodies(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as opened:
            yield _flat(opened.read().to_pylist())
            yield repr(opened.metadata.to_dict()).encode()
    if path.read_bytes().startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(path)) as connection:
            yield "\n".join(connection.iterdump()).encode()


def _flat(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value + b"\n"
    if isinstance(value, dict):
        return b"".join(_flat(one) for one in value.values())
    if isinstance(value, list | tuple):
        return b"".join(_flat(one) for one in value)
    return str(value).encode() + b"\n"
