"""What of a model is saved while it trains, and whether a checkpoint fits it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qanchor_plugin.engine.weights import state_digest
from qanchor_plugin.errors import EngineError
from qanchor_plugin.training.trainer.checkpoints import Checkpoint
from qanchor_plugin.training.trainer.plan import changed


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without frozen parameters (half a billion of them under LoRA)."""
    every = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, one in every if not one.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def frozen_digest(model: nn.Module) -> str:
    """Identity of the parameters that do not train: a checkpoint holds only the others."""
    named = model.named_parameters(remove_duplicate=False)
    return state_digest({name: one for name, one in named if not one.requires_grad})


def load_trained(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """The model holds ``weights``.

    Raises:
        EngineError: they are of another architecture; names the tensors that differ.
    """
    own = trained_state(model)
    faults = [f"{name} is only in the checkpoint" for name in sorted(set(weights) - set(own))]
    faults += [f"{name} is only in the model" for name in sorted(set(own) - set(weights))]
    for name in sorted(set(own) & set(weights)):
        saved, mine = weights[name], own[name]
        if saved.shape != mine.shape or saved.dtype != mine.dtype:
            faults.append(
                f"{name} is {saved.dtype} {tuple(saved.shape)} in the checkpoint, {mine.dtype} "
                f"{tuple(mine.shape)} in the model"
            )
    if faults:
        raise EngineError(
            f"{where} is of another architecture: {'; '.join(faults[:5])}"
            f"{f' and {len(faults) - 5} more' if len(faults) > 5 else ''}. Train with the engine it was "
            "made for, "
            "or in another folder."
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[name])


def check_same_run(
    found: Checkpoint, plan: Mapping[str, Any], identity: Mapping[str, Any], where: str
) -> None:
    """The checkpoint was made by this plan from these data and this engine.

    Raises:
        EngineError: it was not; names each value that differs.
    """
    faults = changed(found.facts.get("plan", {}), plan)
    faults += changed(found.facts.get("identity", {}), identity)
    if faults:
        raise EngineError(
            f"{where} is of another run: {'; '.join(faults)}. Resume with the values it was made with, or "
            "train in "
            "another folder."
        )
