"""What an engine asks of a backbone, and the wrapper around a transformers causal LM.

Shape letters: B users, S new tokens, P cached tokens, C token width, W hidden width, H heads, D head width,
N layers, L prefix tokens, R rotated channels of a head.
"""
# ruff: noqa: N815  (fields carry shape suffixes, like all tensors here)

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qanchor_plugin.errors import EngineError

KV = list[Tensor]
"""A prefix's cached keys and values: tensors (B, H, P, D) in the backbone's own fixed order.
This is what serving stores; token P is always the second axis from the end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheShape:
    """What a backbone's cache is made of: derived tensors, then key and value of each layer in turn.

    Attributes:
        num_derived: leading tensors that follow from the soft tokens and need not be stored.
        num_layers, num_key_heads, num_value_heads, head_dim: of the rest.
        key_bias_NHD: float32 bias that every key carries before RoPE; zeros without one.
    """

    num_derived: int
    num_layers: int
    num_key_heads: int
    num_value_heads: int
    head_dim: int
    key_bias_NHD: Tensor


class Backbone(Protocol):
    """A causal model over rows of soft tokens."""

    def cache_shape(self) -> CacheShape:
        """How the cache is laid out, for storing it.

        Raises:
            EngineError: this backbone's keys cannot be stored.
        """
        ...

    def rotation(self, positions_L: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 cosines and sines (L, R/2) that rotate the first R channels of a key, halves paired."""
        ...

    def derived_cache(self, rows_BLC: Tensor) -> KV:
        """The leading tensors of the cache, from the soft tokens alone."""
        ...

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

    def cache_shape(self) -> CacheShape:
        """See :class:`Backbone`."""
        base, config = self.model.base_model, self.model.config
        layers = getattr(base, "layers", None)
        if layers is None or not hasattr(base, "rotary_emb") or not hasattr(layers[0].self_attn, "k_proj"):
            raise EngineError(
                f"keys of a {type(base).__name__} cannot be stored: it is not built like Qwen2 (layers, "
                "self_attn.k_proj, rotary_emb). Set 'kv: never'; its prefixes are prefilled each time."
            )
        heads = config.num_key_value_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        biases = [getattr(layer.self_attn.k_proj, "bias", None) for layer in layers]
        normed = hasattr(layers[0].self_attn, "k_norm")
        flat = [
            torch.zeros(heads * width) if bias is None or normed else bias.detach().float().cpu()
            for bias in biases
        ]
        return CacheShape(
            num_derived=0,
            num_layers=len(layers),
            num_key_heads=heads,
            num_value_heads=heads,
            head_dim=width,
            key_bias_NHD=torch.stack(flat).unflatten(1, (heads, width)),
        )

    def rotation(self, positions_L: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Backbone`."""
        like = torch.zeros(1, device=positions_L.device)
        cosine, sine = self.model.base_model.rotary_emb(like, positions_L.unsqueeze(0))
        half = cosine.shape[-1] // 2
        return cosine[0, :, :half], sine[0, :, :half]

    def derived_cache(self, rows_BLC: Tensor) -> KV:
        """See :class:`Backbone`: none."""
        return []

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
