"""LoRA and recomputed layers of a real (tiny) transformers backbone: the same results, ordinary folders."""

import copy

import pytest
import torch

from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.errors import EngineError
from qanchor_plugin.training.trainer.lora import LoraPlan, trainable
from qanchor_plugin.training.trainer.recompute import recomputed_layers
from tests.unit.engine.conftest import *  # noqa: F403  (its engines are fixtures here, too)


@pytest.fixture
def engine(paper: QueryAnchorEngine) -> QueryAnchorEngine:
    modules = copy.deepcopy(paper.modules)
    return QueryAnchorEngine(paper.config, modules, paper.encoder, paper.tokenizer)


def hidden_states(modules: EngineModules, rows_BSC: torch.Tensor) -> torch.Tensor:
    """(2, 5, W): a prefix of 6 tokens is read into a cache, then 5 tokens after it see it."""
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    kv = modules.prefill(rows_BSC[:, :6], torch.arange(6).expand(2, 6), valid)
    own = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 5, 5)
    allowed = torch.cat([valid[:, None].expand(2, 5, 6), own], dim=2)
    positions = torch.arange(6, 11).expand(2, 5)
    suffix = torch.ones(5, dtype=torch.bool)
    return modules.backbone.encode(rows_BSC[:, 6:], positions, allowed, suffix, kv, torch.arange(5))[0]


def rows() -> torch.Tensor:
    return torch.randn(2, 11, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_recomputed_layers_give_the_same_states_and_gradients_and_see_the_cache(paper):
    found = []
    for wanted in (False, True):
        modules, given = copy.deepcopy(paper.modules), rows()
        with trainable(modules, LoraPlan(rank=4, dropout=0.0)), recomputed_layers(modules, wanted):
            modules.train()
            torch.manual_seed(1)
            for name, one in modules.named_parameters():
                if "lora_" in name:
                    torch.nn.init.normal_(one, std=0.1)
            states = hidden_states(modules, given)
            states.square().sum().backward()
            learnt = {name: one.grad for name, one in modules.named_parameters() if one.grad is not None}
        found.append((states.detach(), given.grad, learnt))
    (plain, plain_grad, plain_lora), (again, again_grad, again_lora) = found
    torch.testing.assert_close(again, plain, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(again_grad, plain_grad, atol=1e-4, rtol=1e-4)
    assert len(plain_lora) == 2 * 7 * 2  # layers, linears, A and B
    assert plain_lora.keys() == again_lora.keys()
    for name, one in plain_lora.items():
        torch.testing.assert_close(again_lora[name], one, atol=1e-4, rtol=1e-4)
    assert again_grad[:, :4].abs().sum() > 0  # the suffix saw its prefix


def test_recomputing_keeps_fewer_tensors_for_the_gradient(engine):
    sizes = []
    for wanted in (False, True):
        kept = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with trainable(engine.modules, None), recomputed_layers(engine.modules, wanted):
            engine.modules.train()
            with torch.autograd.graph.saved_tensors_hooks(count, lambda one: one):
                hidden_states(engine.modules, rows())
        sizes.append(kept)
    assert sizes[1] < 0.5 * sizes[0]


def test_lora_trains_adapters_and_merges_them_into_an_ordinary_engine(engine, tmp_path):
    before = {name: one.clone() for name, one in engine.modules.state_dict().items()}
    with trainable(engine.modules, LoraPlan(rank=4, dropout=0.0)):
        names = {name for name, one in engine.modules.named_parameters() if one.requires_grad}
        inside = {name for name in names if name.startswith("backbone.")}
        assert inside
        assert all("lora_" in name for name in inside)
        assert len(inside) == 2 * 7 * 2  # layers, linears, A and B
        assert any(name.startswith("projection.") for name in names)
        for name, one in engine.modules.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(one, std=0.1, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            adapted = hidden_states(engine.modules, rows())
    assert set(engine.modules.state_dict()) == set(before)
    assert not any(one.requires_grad for one in engine.modules.parameters())
    with torch.no_grad():
        merged = hidden_states(engine.modules, rows())
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=1e-4)
    moved = {name for name, one in engine.modules.state_dict().items() if not torch.equal(one, before[name])}
    assert len(moved) == 2 * 7
    engine.save_pretrained(tmp_path / "saved")
    loaded = QueryAnchorEngine.from_pretrained(tmp_path / "saved", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(hidden_states(loaded.modules, rows()), merged, atol=1e-6, rtol=1e-5)


def test_without_lora_the_backbone_is_frozen_and_a_meaning_engine_trains_whole(engine, demo):
    with trainable(engine.modules, None):
        assert not any(one.requires_grad for one in engine.modules.backbone.parameters())
        assert all(one.requires_grad for one in engine.modules.projection.parameters())
    with trainable(demo.modules, LoraPlan()):
        assert all(one.requires_grad for one in demo.modules.parameters())
    assert not any(one.requires_grad for one in demo.modules.parameters())


def test_what_a_backbone_does_not_have_is_named(engine, demo):
    with (
        pytest.raises(EngineError, match=r"none of the layers \['Wqkv'\]"),
        trainable(engine.modules, LoraPlan(linears=("Wqkv",))),
    ):
        pass
    with pytest.raises(EngineError, match="no language model"), recomputed_layers(demo.modules, True):
        pass
