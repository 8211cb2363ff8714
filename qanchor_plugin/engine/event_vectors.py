"""Vectors of event texts, as content-addressed snapshots on disk (numpy only).

A snapshot folder holds ``manifest.json`` and shards ``high-00000.npy``, ``low-00000.npy`` (the ids as
two big-endian words each, so that numeric order is byte order) and ``vectors-00000.npy``, sorted by
id across shards and memory-mapped. Its name is the digest of what it holds, so a reader that has opened
one never sees another's bytes. Shape letters: N texts, D the encoder's dimension.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import LakeError, MissingVectorsError
from qanchor_plugin.identity import TEXT_ID_BYTES, digest

FORMAT = 1
MANIFEST = "manifest.json"
CURRENT = "CURRENT"
PARTS = ("high", "low", "vectors")
DEFAULT_SHARD_ROWS = 1_000_000
NEXT_STEP = "Run the refresh again (qanchor refresh --full) to rewrite it."

UInt8 = npt.NDArray[np.uint8]
Float16 = npt.NDArray[np.float16]


class VectorSnapshot:
    """Vectors by text id, memory-mapped and found by binary search.

    Attributes:
        encoder_id: identity of the event encoder that made the vectors.
        dim: D.
        num_texts: N.
        snapshot_id: digest of ids and vectors; also the folder's name.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.encoder_id: str = manifest["encoder_id"]
        self.dim: int = manifest["dim"]
        self.num_texts: int = manifest["num_texts"]
        self.snapshot_id: str = manifest["snapshot_id"]
        self._high, self._low, self._vectors = (
            [np.load(folder / one[part]["file"], mmap_mode="r") for one in manifest["shards"]]
            for part in PARTS
        )
        self._last = np.array([high[-1] for high in self._high], np.uint64)

    @classmethod
    def open(cls, folder: str | Path) -> "VectorSnapshot":
        """The snapshot in ``folder``, or the one that ``folder/CURRENT`` names, after a check of every
        file's size and digest (once a process for each snapshot).

        Raises:
            LakeError: absent, incomplete, truncated or altered; names the file.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).is_file() and (folder / CURRENT).is_file():
            folder = folder / (folder / CURRENT).read_text(encoding="utf-8").strip()
        manifest = _read_manifest(folder)
        _check_files(str(folder.resolve()), json.dumps(manifest, sort_keys=True))
        return cls(folder, manifest)

    def lookup(self, ids: UInt8) -> Float16:
        """The vectors of ``ids``, in their order: (N, 16) uint8 to (N, D) float16.

        Raises:
            MissingVectorsError: some ids have no vector; says how many distinct ones.
        """
        ids = _checked_ids(ids)
        found = np.zeros((len(ids), self.dim), np.float16)
        missing = np.ones(len(ids), bool)
        high, low = _words(ids)
        shard_of = np.searchsorted(self._last, high) if len(self._last) else np.zeros(len(ids), int)
        for shard in np.unique(shard_of[shard_of < len(self._high)]):
            self._search(int(shard), np.flatnonzero(shard_of == shard), high, low, found, missing)
        for shard in range(len(self._high)):  # ids equal in 8 bytes may run on into the next shard
            rest = np.flatnonzero(missing & (shard_of < shard) & (self._high[shard][0] == high))
            if len(rest):
                self._search(shard, rest, high, low, found, missing)
        if missing.any():
            distinct = len(np.unique(ids[missing], axis=0))
            raise MissingVectorsError(distinct, encoder_id=self.encoder_id)
        return found

    def _search(
        self,
        shard: int,
        rows: npt.NDArray[np.intp],
        high: npt.NDArray[np.uint64],
        low: npt.NDArray[np.uint64],
        found: Float16,
        missing: npt.NDArray[np.bool_],
    ) -> None:
        """Fills ``found`` and clears ``missing`` for those of ``rows`` that stand in the shard."""
        keys = self._high[shard]
        at = np.searchsorted(keys, high[rows])
        while len(rows):
            inside = (at < len(keys)) & (keys[np.minimum(at, len(keys) - 1)] == high[rows])
            rows, at = rows[inside], at[inside]
            if not len(rows):
                return
            same = self._low[shard][at] == low[rows]
            found[rows[same]] = self._vectors[shard][at[same]]
            missing[rows[same]] = False
            rows, at = rows[~same], at[~same] + 1


def write_snapshot(
    folder: str | Path,
    *,
    encoder_id: str,
    ids: UInt8,
    vectors: Float16,
    shard_rows: int = DEFAULT_SHARD_ROWS,
) -> Path:
    """``folder/<snapshot id>`` holds exactly these vectors, and ``folder/CURRENT`` names it.

    Writing the same vectors again changes nothing. A reader sees the whole snapshot or none of it.

    Args:
        folder: the encoder's folder of snapshots; made when absent.
        encoder_id: identity of the encoder.
        ids: (N, 16) uint8, distinct, in any order.
        vectors: (N, D) float16.
        shard_rows: most rows a file.

    Raises:
        LakeError: ids repeat, shapes disagree, or the folder cannot be written.
    """
    ids = _checked_ids(ids)
    if len(ids) != len(vectors) or vectors.ndim != 2 or vectors.dtype != np.float16:
        raise LakeError(
            f"{len(ids)} ids and vectors of shape {vectors.shape}, {vectors.dtype}; "
            "give one float16 row an id."
        )
    order = np.lexsort(_words(ids)[::-1])
    ids, vectors = ids[order], np.ascontiguousarray(vectors[order])
    if len(ids) > 1 and (ids[1:] == ids[:-1]).all(axis=1).any():
        raise LakeError("text ids repeat; give each text once.")
    snapshot_id = digest("vectors", FORMAT, encoder_id, list(vectors.shape), ids.tobytes(), vectors.tobytes())
    folder = Path(folder)
    target = folder / snapshot_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (target / MANIFEST).is_file():
            _write_folder(target, encoder_id, snapshot_id, ids, vectors, shard_rows)
        _replace_text(folder / CURRENT, snapshot_id)
    except OSError as error:
        raise LakeError(
            f"cannot write vectors under {folder}: {error}. Free space or mend permissions."
        ) from error
    return target


def _write_folder(
    target: Path, encoder_id: str, snapshot_id: str, ids: UInt8, vectors: Float16, shard_rows: int
) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    try:
        shards = []
        for number, start in enumerate(range(0, len(ids), shard_rows)):
            rows = slice(start, start + shard_rows)
            arrays: tuple[npt.NDArray[Any], ...] = (*_words(ids[rows]), vectors[rows])
            shards.append(
                {
                    part: _save(scratch / f"{part}-{number:05d}.npy", array)
                    for part, array in zip(PARTS, arrays, strict=True)
                }
            )
        manifest = {
            "format": FORMAT,
            "encoder_id": encoder_id,
            "snapshot_id": snapshot_id,
            "dim": int(vectors.shape[1]),
            "num_texts": len(ids),
            "shards": shards,
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest, sort_keys=True), encoding="utf-8")
        try:
            scratch.rename(target)
        except OSError:
            if not (target / MANIFEST).is_file():  # else another writer of the same bytes was first
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _save(path: Path, array: npt.NDArray[Any]) -> dict[str, Any]:
    np.save(path, array, allow_pickle=False)
    return {"file": path.name, "bytes": path.stat().st_size, "digest": _file_digest(path)}


def _replace_text(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as scratch:
        scratch.write(text)
    os.replace(scratch.name, path)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LakeError(f"no vectors at {folder}: {MANIFEST} is absent. {NEXT_STEP}") from error
    except (OSError, ValueError) as error:
        raise LakeError(f"{path} cannot be read ({error}). {NEXT_STEP}") from error
    wanted = {"format", "encoder_id", "snapshot_id", "dim", "num_texts", "shards"}
    if not isinstance(manifest, dict) or set(manifest) != wanted or manifest["format"] != FORMAT:
        raise LakeError(f"{path} is not a vector manifest of format {FORMAT}. {NEXT_STEP}")
    return manifest


@lru_cache(maxsize=64)
def _check_files(folder: str, manifest_json: str) -> None:
    for shard in json.loads(manifest_json)["shards"]:
        for part in shard.values():
            path = Path(folder) / part["file"]
            if not path.is_file():
                raise LakeError(f"{path} is absent. {NEXT_STEP}")
            size = path.stat().st_size
            if size != part["bytes"]:
                raise LakeError(f"{path} has {size} bytes, {part['bytes']} were written. {NEXT_STEP}")
            if _file_digest(path) != part["digest"]:
                raise LakeError(f"{path} does not hold what was written (digest differs). {NEXT_STEP}")


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _checked_ids(ids: UInt8 | Sequence[Any]) -> UInt8:
    ids = np.ascontiguousarray(ids)
    if ids.dtype != np.uint8 or ids.ndim != 2 or ids.shape[1] != TEXT_ID_BYTES:
        raise LakeError(
            f"text ids of shape {ids.shape}, {ids.dtype}; accepted are (N, {TEXT_ID_BYTES}) uint8."
        )
    return ids


def _words(ids: UInt8) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The ids as pairs of big-endian words, which sort as the bytes do."""
    words = np.ascontiguousarray(ids).view(">u8").astype(np.uint64).reshape(len(ids), 2)
    return words[:, 0], words[:, 1]
