"""The meaning space of one's own texts."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.training.own_space import fit_own_space, set_space
from tests.unit.engine.conftest import *  # noqa: F403  (its users are fixtures here, too)
from tests.unit.engine.conftest import RandomVectors


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
    assert fit_own_space(engine, batches, "texts") == "128 directions of 300 texts"
    space = engine.modules.space
    assert np.allclose(space.text_mean.numpy(), batches.vectors.numpy().mean(axis=0), atol=1e-6)
    basis = space.basis.numpy()
    assert np.allclose(basis.T @ basis, np.eye(DEMO.meaning_dim), atol=1e-4)
    assert engine.digest != before


def test_too_few_texts_are_refused_and_nothing_changes(engine):
    before = engine.digest
    with pytest.raises(InputDataError, match="100 distinct texts"):
        fit_own_space(engine, Batches(100), "texts")
    assert engine.digest == before


def test_an_engine_that_keeps_its_own_space_is_left_alone_and_one_without_is_told(engine):
    before = engine.digest
    fit_own_space(engine, Batches(100), "engine")
    assert engine.digest == before
    engine.modules.space = None
    fit_own_space(engine, Batches(300), "engine")
    with pytest.raises(InputDataError, match=r"'demo' has no meaning heads.*--space engine"):
        fit_own_space(engine, Batches(300), "behaviour")


def random_maps(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"text_mean": (384,), "query_mean": (384,), "basis": (384, 128), "query_basis": (384, 128)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_space_of_behaviour_is_another_engine_that_saves_and_loads(engine, tmp_path):
    before = (engine.digest, engine.prefix_digest)
    set_space(engine, "behaviour", random_maps(0))
    assert engine.digest != before[0]
    assert engine.prefix_digest != before[1]
    engine.save_pretrained(tmp_path)
    loaded = QueryAnchorEngine.load(str(tmp_path), device="cpu")
    assert loaded.config.space == "behaviour"
    assert loaded.digest == engine.digest
    texts = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 384)).astype(np.float32))
    for side in ("texts", "queries"):
        made = getattr(loaded.modules.space, side)(texts)
        assert torch.equal(made, getattr(engine.modules.space, side)(texts))
        assert torch.allclose(made.norm(dim=1), torch.ones(5), atol=1e-5)
    set_space(engine, "behaviour", random_maps(0) | {"query_basis": random_maps(1)["query_basis"]})
    assert engine.digest != loaded.digest


def test_before_it_is_fitted_a_space_of_behaviour_maps_queries_as_texts():
    made = QueryAnchorEngine.untrained(DEMO.with_(space="behaviour"), device="cpu").modules.space
    assert torch.equal(made.basis, made.query_basis)
    assert made.basis.any()


def test_packed_queries_over_a_space_of_behaviour_answer_as_the_full_encode(engine, users):
    set_space(engine, "behaviour", random_maps(2))
    prefixes = engine.build_prefixes(users, RandomVectors(engine.encoder_dim))
    queries = [engine.prepare_query(one) for one in ("beer?", "a pet?")]
    cutoffs = [one.cutoff for one in users]
    apart = engine.embed(prefixes, queries, cutoffs) - engine.embed_reference(prefixes, queries, cutoffs)
    assert np.abs(apart).max() <= 1e-5
