"""The meaning space of one's own texts."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.training.own_space import fit_own_space


@dataclass(frozen=True)
class Batch:
    vectors_VE: torch.Tensor  # noqa: N815


class Batches:
    """Batches whose texts are all the same ``num`` vectors."""

    def __init__(self, num: int) -> None:
        made = np.random.default_rng(0).normal(size=(num, 384)).astype(np.float32)
        self.vectors = torch.from_numpy(made / np.linalg.norm(made, axis=1, keepdims=True))

    def batch(self, step: int) -> Batch:
        return Batch(self.vectors)


@pytest.fixture
def engine() -> QueryAnchorEngine:
    return QueryAnchorEngine.untrained(DEMO, device="cpu")


def test_the_space_is_of_the_texts_and_the_engine_another(engine):
    before = engine.digest
    batches = Batches(300)
    assert fit_own_space(engine, batches) == 300
    space = engine.modules.space
    assert np.allclose(space.text_mean.numpy(), batches.vectors.numpy().mean(axis=0), atol=1e-6)
    basis = space.basis.numpy()
    assert np.allclose(basis.T @ basis, np.eye(DEMO.meaning_dim), atol=1e-4)
    assert engine.digest != before


def test_too_few_texts_are_refused_and_nothing_changes(engine):
    before = engine.digest
    with pytest.raises(InputDataError, match="100 distinct texts"):
        fit_own_space(engine, Batches(100))
    assert engine.digest == before


def test_an_engine_without_meaning_heads_is_left_alone(engine):
    engine.modules.space = None
    assert fit_own_space(engine, Batches(300)) == 0
