"""Writes the demo preset's meaning space: ``python -m qanchor_plugin.engine.fit_meaning [texts.txt]``.

The space is the mean and the leading principal directions of the sentence encoder's vectors of some
texts: lines of a file (such as the group names of a store), else whole words of the encoder's vocabulary.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.engine.event_encoder import EventEncoder
from qanchor_plugin.engine.load import MEANING_SPACE
from qanchor_plugin.engine.weights import write_tensors

Float32 = npt.NDArray[np.float32]


def vocabulary_words(encoder: EventEncoder) -> list[str]:
    """4,000 whole lower-case words of four letters and more, every third of the first 12,000."""
    lines = (encoder.folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = [one.strip() for one in lines]
    plain = [one for one in words if one.isascii() and one.isalpha() and one.islower() and len(one) >= 4]
    return plain[:12_000:3]


def fit(vectors: Float32, meaning_dim: int) -> dict[str, Float32]:
    """Mean (E,) and basis (E, M) of vectors (N, E): directions of most variance, centred and normalised."""
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    basis = np.ascontiguousarray(directions[:meaning_dim].T)
    return {"text_mean": mean, "query_mean": mean, "basis": basis}


def main(arguments: list[str]) -> None:
    """The package's file holds the space fitted on the texts."""
    encoder = EventEncoder(DEMO.encoder_source, dim=DEMO.encoder_dim)
    texts = (
        sorted(set(Path(arguments[0]).read_text(encoding="utf-8").splitlines()))
        if arguments
        else vocabulary_words(encoder)
    )
    MEANING_SPACE.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(MEANING_SPACE, fit(encoder.encode(texts).astype(np.float32), DEMO.meaning_dim))
    print(f"{MEANING_SPACE}: fitted on {len(texts)} texts")


if __name__ == "__main__":
    main(sys.argv[1:])
