"""Untrained weights from a fixed seed that already keep what the tokens say.

The demo engine is useful before any training (see docs/decisions): meaning heads start by meaning, values
and outputs as rotations, and so does the projection. Shape letters as in ``meaning``.
"""

import math

import torch
from torch import Tensor, nn

from qanchor_plugin.engine.hierarchy import TOKEN_TYPES, CountMLP
from qanchor_plugin.engine.meaning import MeaningBackbone
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.projection import Projection

PLAIN_STD = 0.02
NAME_SCALE = 10.0
"""Unit vectors of 384 numbers, beside counts of unit scale each: names would not be heard else."""
COUNT_SCALE = 0.5


def initialise(modules: EngineModules, seed: int) -> None:
    """Every own weight is drawn anew from ``seed``; a transformers backbone is left as loaded."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in sorted(modules.named_modules()):
            if not name.startswith("backbone.model"):
                _draw(module, generator)
        for parameter in (modules.suffix.user_emb, *modules.hierarchy.edges.values()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * PLAIN_STD)
        _rotate_through(modules.projection, generator)
        if isinstance(modules.backbone, MeaningBackbone):
            _start_by_meaning(modules, modules.backbone, generator)


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    """Linear layers keep the scale of unit inputs; norms are the identity."""
    if isinstance(module, nn.Linear):
        std = 1.0 / math.sqrt(module.in_features)
        module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
        if module.bias is not None:
            module.bias.zero_()
    if isinstance(module, nn.LayerNorm):
        module.weight.fill_(1.0)
        module.bias.zero_()


def _rotate_through(projection: Projection, generator: torch.Generator) -> None:
    """The two ReLU layers start as one rotation: relu(x) - relu(-x) = x."""
    inner, outer = projection.inner.weight, projection.outer.weight
    size = min(inner.shape[1], inner.shape[0] // 2, outer.shape[0])
    rotation = orthogonal(inner.shape[1], generator)[:, :size].T
    inner[:size], inner[size : 2 * size] = rotation, -rotation
    outer[:, : 2 * size] = 0.0
    outer[:size, :size] = torch.eye(size)
    outer[:size, size : 2 * size] = -torch.eye(size)
    outer[:, 2 * size :] *= 0.1


def orthogonal(size: int, generator: torch.Generator) -> Tensor:
    """(size, size): a random rotation (or reflection)."""
    matrix, upper = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return (matrix * torch.sign(torch.diagonal(upper))).float()


def _start_by_meaning(modules: EngineModules, backbone: MeaningBackbone, generator: torch.Generator) -> None:
    width = modules.config.hidden
    hierarchy = modules.hierarchy
    directions = orthogonal(width, generator)
    hierarchy.types.copy_(directions[: len(TOKEN_TYPES)] * 2.0)
    if modules.start is not None:
        modules.start.copy_(directions[len(TOKEN_TYPES)])
    hierarchy.group_name.weight.mul_(NAME_SCALE)
    for counts in (one for one in hierarchy.modules() if isinstance(one, CountMLP)):
        counts.linear.weight.mul_(COUNT_SCALE)
        counts.outer.weight.mul_(COUNT_SCALE)
    for block in backbone.layers:
        block.outer.weight.mul_(0.3)
        attention = block.attention
        attention.value.weight.copy_(orthogonal(width, generator))
        attention.out.weight.copy_(orthogonal(width, generator))
        attention.query.weight.mul_(0.1)
        attention.key.weight.mul_(0.1)  # ordinary heads start almost even
