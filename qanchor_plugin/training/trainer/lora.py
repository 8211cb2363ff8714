"""LoRA on a transformers backbone while it trains, and an ordinary backbone afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from qanchor_plugin.engine.backbone import CausalLMBackbone
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.errors import EngineError
from qanchor_plugin.extras import require

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class LoraPlan:
    """Low-rank adapters of a backbone (Query-as-Anchor, appendix: r 64, alpha 32, dropout 0.1).

    Attributes:
        rank, alpha, dropout: peft's.
        linears: names of the adapted layers.
    """

    rank: int = 64
    alpha: int = 32
    dropout: float = 0.1
    linears: tuple[str, ...] = LINEARS

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values."""
        return {**asdict(self), "linears": list(self.linears)}


@contextmanager
def trainable(modules: EngineModules, lora: LoraPlan | None) -> Iterator[None]:
    """Within, what is to be trained has gradients: all of a ``meaning`` engine; of an ``hf`` one
    everything but the backbone, which learns through LoRA (None leaves it frozen). Afterwards nothing
    has, and the adapters are merged into the weights.

    Raises:
        EngineError: the backbone has none of the named layers.
    """
    backbone = modules.backbone
    modules.requires_grad_(True)
    tuner = None
    if isinstance(backbone, CausalLMBackbone):
        backbone.requires_grad_(False)
        tuner = None if lora is None else _adapted(backbone, lora)
    try:
        yield
    finally:
        if tuner is not None and isinstance(backbone, CausalLMBackbone):
            backbone.model = tuner.merge_and_unload()
        modules.requires_grad_(False).eval()


def _adapted(backbone: CausalLMBackbone, lora: LoraPlan) -> Any:
    peft = require("peft", purpose="Training a language model")
    names = {name.rsplit(".", 1)[-1] for name, _ in backbone.model.named_modules()}
    found = [one for one in lora.linears if one in names]
    if not found:
        raise EngineError(
            f"the backbone {type(backbone.model).__name__} has none of the layers {list(lora.linears)}. "
            "Name its own "
            "linear layers in LoraPlan(linears=...)."
        )
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=found
    )
    tuner = peft.LoraModel(backbone.model, config, "default")
    for name, one in backbone.model.named_parameters():
        if "lora_" in name:
            one.data = one.data.float()  # adapters learn in float32 beside a bfloat16 backbone
    return tuner
