"""Sentence vectors: the same for a text whatever stands beside it."""

import numpy as np
import pytest

from qanchor_plugin.engine.event_encoder import EventEncoder
from qanchor_plugin.errors import EngineError

TEXTS = ["beer", "dog food " * 12, "", "organic bananas", "beer", "x " * 300, "ünï \x00 code"]


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_a_text_s_vector_does_not_depend_on_the_batch(engine_named, name):
    engine = engine_named(name)
    vectors = engine.encode_texts(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), engine.encoder_dim), np.float16)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1.0, atol=2e-3)
    for row, text in enumerate(TEXTS):
        assert engine.encode_texts([text])[0].tobytes() == vectors[row].tobytes()
    many = [*(f"filler {n} " * (n % 9) for n in range(40)), *TEXTS]
    np.testing.assert_array_equal(engine.encode_texts(many, batch_size=40)[-len(TEXTS) :], vectors)
    assert engine.encode_texts([]).shape == (0, engine.encoder_dim)


def test_vectors_are_those_of_sentence_transformers(demo):
    model = demo._encoder.model
    wanted = model.encode(["beer", "organic bananas"], normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(demo.encode_texts(["beer", "organic bananas"]), wanted, atol=1e-3)
    assert wanted[0] @ wanted[1] < 0.6


def test_a_wrong_width_is_named(sentence_encoder_folder):
    with pytest.raises(EngineError, match="makes 32-d vectors, the engine wants 31"):
        EventEncoder(str(sentence_encoder_folder), dim=31).encode(["a"])
