"""Vectors of texts, remembered: a baseline's sentence encoder reads each text once, whatever is run again."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qanchor_plugin.evaluation.text_baselines import Encode
from qanchor_plugin.identity import TEXT_ID_BYTES, text_id

CHUNK = 512
"""Texts encoded between two writes: what a run that is stopped loses at most."""


def remembered(
    make_encode: Callable[[], Encode], folder: Path, *, say: Callable[[str], None] = print
) -> Encode:
    """An encoder whose vectors stay in ``folder``, by the digest of their text.

    Args:
        make_encode: loads the encoder itself; called when a text is new, once.
        folder: of this encoder alone.
        say: gets a line a chunk.
    """
    loaded: list[Encode] = []

    def encode(texts: Sequence[str]) -> npt.NDArray[np.floating]:
        known = _read(folder)
        new = [text for text in dict.fromkeys(texts) if text_id(text) not in known]
        for start in range(0, len(new), CHUNK):
            chunk = new[start : start + CHUNK]
            if not loaded:
                loaded.append(make_encode())
            vectors = np.asarray(loaded[0](chunk), np.float32)
            ids = [text_id(text) for text in chunk]
            _write(folder, ids, vectors)
            known.update(zip(ids, vectors, strict=True))
            say(f"encoded {start + len(chunk):,} of {len(new):,} texts")
        return np.stack([known[text_id(text)] for text in texts])

    return encode


def _read(folder: Path) -> dict[bytes, npt.NDArray[np.float32]]:
    known: dict[bytes, npt.NDArray[np.float32]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as part:
            ids, vectors = part["ids"], part["vectors"]
        known.update(zip((row.tobytes() for row in ids), vectors, strict=True))
    return known


def _write(folder: Path, ids: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> None:
    """One more file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.npz")))
    half = folder / f"{number:05d}.part"
    table = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, TEXT_ID_BYTES)
    with half.open("wb") as file:
        np.savez(file, ids=table, vectors=vectors)
    half.replace(half.with_suffix(".npz"))
