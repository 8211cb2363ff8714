"""Writes the demo preset's meaning space: ``python -m qanchor_plugin.engine.fit_meaning [texts.txt]``.

The space is the mean and the leading principal directions of the sentence encoder's vectors of some
texts: the lines of a file, by default ``presets/demo/texts.txt``, the product categories and departments
of the example store (The Complete Journey, CC0).
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
    path = Path(arguments[0]) if arguments else MEANING_SPACE.with_name("texts.txt")
    texts = sorted(set(path.read_text(encoding="utf-8").splitlines()))
    write_tensors(MEANING_SPACE, fit(encoder.encode(texts).astype(np.float32), DEMO.meaning_dim))
    print(f"{MEANING_SPACE}: fitted on {len(texts)} texts")


if __name__ == "__main__":
    main(sys.argv[1:])
