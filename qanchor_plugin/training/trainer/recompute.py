"""Gradient checkpointing of a transformers backbone that keeps its cache.

``gradient_checkpointing_enable`` of transformers 5 drops the cache without an error, and the suffix would no
longer see its prefix. Here each layer is a pure function of its input and its cached keys and values.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qanchor_plugin.engine.backbone import CausalLMBackbone
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.errors import EngineError


class _OneLayerCache:
    """The keys and values of one layer: what it reads, and what it leaves."""

    def __init__(self, keys: Tensor | None, values: Tensor | None) -> None:
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Those of old and new tokens."""
        self.keys = keys if self.keys is None else torch.cat([self.keys, keys], -2)
        self.values = values if self.values is None else torch.cat([self.values, values], -2)
        return self.keys, self.values


@contextmanager
def recomputed_layers(modules: EngineModules, wanted: bool) -> Iterator[None]:
    """Within, a transformers backbone that is in training mode keeps no activations inside its layers and
    computes them again for the gradient; its results and its cache stay the same.

    Raises:
        EngineError: wanted of an engine without a language model, or of one whose layers are not found.
    """
    if not wanted:
        yield
        return
    if not isinstance(modules.backbone, CausalLMBackbone):
        raise EngineError(
            f"engine {modules.config.name!r} has no language model; gradient checkpointing is for those. "
            "Leave gradient_checkpointing off."
        )
    layers = getattr(modules.backbone.model.base_model, "layers", None)
    if layers is None:
        raise EngineError(
            f"the layers of {type(modules.backbone.model).__name__} are not found as 'layers' of its base "
            "model. "
            "Leave gradient_checkpointing off."
        )
    before = [layer.forward for layer in layers]
    for number, layer in enumerate(layers):
        layer.forward = _recomputing(layer, before[number], number)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _recomputing(layer: Any, forward: Callable[..., Any], number: int) -> Callable[..., Any]:
    def run(hidden: Tensor, past_key_values: Any = None, **more: Any) -> Any:
        if not (layer.training and torch.is_grad_enabled()) or past_key_values is None:
            return forward(hidden, past_key_values=past_key_values, **more)
        held = past_key_values.layers
        known = number < len(held) and held[number].is_initialized
        keys, values = (held[number].keys, held[number].values) if known else (None, None)

        def pure(hidden: Tensor, keys: Tensor | None, values: Tensor | None) -> tuple[Any, Any, Any]:
            own = _OneLayerCache(keys, values)
            return forward(hidden, past_key_values=own, **more), own.keys, own.values

        made, all_keys, all_values = checkpoint(pure, hidden, keys, values, use_reentrant=False)
        length = 0 if keys is None else keys.shape[-2]
        past_key_values.update(all_keys[..., length:, :], all_values[..., length:, :], number)
        return made

    return run
