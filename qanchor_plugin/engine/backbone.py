"""What an engine asks of a backbone, and the wrapper around a transformers causal LM.

Shape letters: B users, S new tokens, P cached tokens, C token width, W hidden width, H heads, D head width.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qanchor_plugin.errors import EngineError

KV = list[Tensor]
"""A prefix's cached keys and values: tensors (B, H, P, D) in the backbone's own fixed order.
This is what serving stores; token P is always the second axis from the end."""


class Backbone(Protocol):
    """A causal model over rows of soft tokens."""

    def encode(
        self,
        rows_BSC: Tensor,
        positions_BS: Tensor,
        allowed: Tensor,
        is_suffix_S: Tensor,
        past: KV | None,
        wanted_K: Tensor,
    ) -> tuple[Tensor, KV]:
        """Hidden states (B, K, W) of the wanted new tokens, and all keys and values, past ones included.

        Args:
            rows_BSC: inputs of the new tokens.
            positions_BS: int64; they may jump and repeat.
            allowed: (B, S, P + S) bool: which token may see which. Every row allows one at least.
            is_suffix_S: (S,) bool: after the prefix, where the query speaks.
            past: the cached prefix, or None.
            wanted_K: (K,) int64 places among the new tokens; empty for a prefill.
        """
        ...


class CausalLMBackbone(nn.Module):
    """A transformers causal LM without its head; rows are its input embeddings.

    It always gets the explicit 4D mask: transformers 5 reads jumps in ``position_ids`` as packed
    sequences when it has to make the mask itself.
    """

    model: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise EngineError(
                f"the backbone has layers of kinds {sorted(kinds)}; only full_attention layers keep a prefix "
                "exact. Use a model without sliding windows, or set use_sliding_window to false."
            )

    def embed_ids(self, ids: Tensor) -> Tensor:
        """Token ids (N,) to input embeddings (N, W)."""
        return self.model.get_input_embeddings()(ids)

    def encode(
        self,
        rows_BSC: Tensor,
        positions_BS: Tensor,
        allowed: Tensor,
        is_suffix_S: Tensor,
        past: KV | None,
        wanted_K: Tensor,
    ) -> tuple[Tensor, KV]:
        """See :class:`Backbone`."""
        from transformers import DynamicCache

        mask = torch.zeros(allowed.shape, dtype=rows_BSC.dtype, device=rows_BSC.device)
        mask = mask.masked_fill(~allowed, torch.finfo(rows_BSC.dtype).min).unsqueeze(1)
        pairs = None if past is None else list(zip(past[::2], past[1::2], strict=True))
        answer = self.model.base_model(
            inputs_embeds=rows_BSC,
            attention_mask=mask,
            position_ids=positions_BS,
            past_key_values=DynamicCache(pairs),
            use_cache=True,
        )
        kv = [part for layer in answer.past_key_values.layers for part in (layer.keys, layer.values)]
        return answer.last_hidden_state[:, wanted_K], kv
