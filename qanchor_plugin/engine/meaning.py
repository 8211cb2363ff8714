"""The demo preset's backbone: a small causal model whose heads attend by meaning.

In a meaning head the score of suffix token i for prefix token j is beta * cos(query, event text j), in the
sentence encoder's own space: queries and keys are fixed projections of its vectors, not rotated, and
cached like any other key. Without such heads a small model ignores its query. All other heads are
ordinary ones with rotary positions.

Shape letters: B users, S new tokens, P cached tokens, K = P + S, W hidden width, H heads, D head
width, M meaning width, C = W + M.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from qanchor_plugin.engine.backbone import KV, CacheShape
from qanchor_plugin.engine.config import EngineConfig


class MeaningAttention(nn.Module):
    """Causal attention: the first heads by meaning, the rest ordinary with RoPE."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__()
        self.num_heads, self.num_meaning = config.num_heads, len(config.betas)
        self.head_dim = config.hidden // config.num_heads
        ordinary = (self.num_heads - self.num_meaning) * self.head_dim
        self.query = nn.Linear(config.hidden, ordinary)
        self.key = nn.Linear(config.hidden, ordinary)
        self.value = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)
        self.beta = nn.Parameter(torch.tensor(config.betas))

    def forward(
        self,
        hidden_BSW: Tensor,
        asked_BSM: Tensor,
        meaning_B1KM: Tensor,
        rotation: tuple[Tensor, Tensor],
        allowed_B1SK: Tensor,
        past: tuple[Tensor, Tensor] | None,
        wanted: Tensor | slice,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, wanted, W), and the ordinary keys and all values of past and new tokens."""
        cosine, sine = rotation
        key = _rotate(self._heads(self.key(hidden_BSW)), cosine, sine)
        value = self._heads(self.value(hidden_BSW))
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        allowed, asked = allowed_B1SK[:, :, wanted], asked_BSM[:, wanted].unsqueeze(1)
        if not asked.shape[2]:
            return hidden_BSW[:, wanted], (key, value)
        by_meaning = scaled_dot_product_attention(
            asked * self.beta.view(1, -1, 1, 1),
            meaning_B1KM.expand(-1, self.num_meaning, -1, -1),
            value[:, : self.num_meaning],
            attn_mask=allowed,
            scale=1.0,
        )
        query = self._heads(self.query(hidden_BSW[:, wanted]))
        query = _rotate(query, cosine[:, :, wanted], sine[:, :, wanted])
        ordinary = scaled_dot_product_attention(query, key, value[:, self.num_meaning :], attn_mask=allowed)
        joined = torch.cat([by_meaning, ordinary], 1).transpose(1, 2).flatten(2)
        return self.out(joined), (key, value)

    def _heads(self, flat_BSX: Tensor) -> Tensor:
        return flat_BSX.unflatten(2, (-1, self.head_dim)).transpose(1, 2)


class MeaningBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden)
        self.attention = MeaningAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden)
        self.inner = nn.Linear(config.hidden, 4 * config.hidden)
        self.outer = nn.Linear(4 * config.hidden, config.hidden)


class MeaningBackbone(nn.Module):
    """A small causal model with attention by meaning; see :class:`..backbone.Backbone`.

    Token rows are ``[hidden input (W); meaning (M)]``. A prefix row's meaning is its key; a suffix row's
    is what is asked. The cache is ``[meaning (B, 1, K, M), key_0, value_0, key_1, value_1, ...]``.
    """

    def __init__(self, config: EngineConfig) -> None:
        super().__init__()
        self.width, self.rope_base = config.hidden, config.rope_base
        self.head_dim = config.hidden // config.num_heads
        self.blocks = nn.ModuleList(MeaningBlock(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden)

    @property
    def layers(self) -> list[MeaningBlock]:
        """The blocks, in order."""
        return [block for block in self.blocks if isinstance(block, MeaningBlock)]

    def cache_shape(self) -> CacheShape:
        """See :class:`..backbone.Backbone`: meanings follow from the soft tokens, so are not stored."""
        attention = [block.attention for block in self.layers]
        heads = attention[0].num_heads - attention[0].num_meaning
        biases = torch.stack([one.key.bias.detach().float().cpu() for one in attention])
        return CacheShape(
            num_derived=1,
            num_layers=len(attention),
            num_key_heads=heads,
            num_value_heads=attention[0].num_heads,
            head_dim=self.head_dim,
            key_bias_NHD=biases.unflatten(1, (heads, self.head_dim)),
        )

    def rotation(self, positions_L: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`..backbone.Backbone`."""
        cosine, sine = _rotation(positions_L.unsqueeze(0), self.head_dim, self.rope_base, torch.float32)
        return cosine[0, 0], sine[0, 0]

    def derived_cache(self, rows_BLC: Tensor) -> KV:
        """See :class:`..backbone.Backbone`: (B, 1, L, M), what meaning heads compare with."""
        return [rows_BLC[:, :, self.width :].unsqueeze(1)]

    def encode(
        self,
        rows_BSC: Tensor,
        positions_BS: Tensor,
        allowed: Tensor,
        is_suffix_S: Tensor,
        past: KV | None,
        wanted_K: Tensor,
    ) -> tuple[Tensor, KV]:
        """Hidden states (B, K, W) of the wanted tokens, and the cache of past and new tokens.

        In the last block only the wanted tokens are attended for: a prefill stops at its keys.
        """
        hidden, meaning = rows_BSC.split([self.width, rows_BSC.shape[2] - self.width], dim=2)
        in_suffix = is_suffix_S.view(1, -1, 1)
        asked = torch.where(in_suffix, meaning, torch.zeros_like(meaning))
        keys = torch.where(in_suffix, torch.zeros_like(meaning), meaning).unsqueeze(1)
        if past is not None:
            keys = torch.cat([past[0], keys], 2)
        rotation = _rotation(positions_BS, self.head_dim, self.rope_base, hidden.dtype)
        kv = [keys]
        for number, block in enumerate(self.layers):
            wanted = wanted_K if number == len(self.blocks) - 1 else slice(None)
            before = None if past is None else (past[1 + 2 * number], past[2 + 2 * number])
            normed = block.attention_norm(hidden)
            attended, new = block.attention(
                normed, asked, keys, rotation, allowed.unsqueeze(1), before, wanted
            )
            hidden = hidden[:, wanted] + attended
            hidden = hidden + block.outer(gelu(block.inner(block.mlp_norm(hidden))))
            kv.extend(new)
        return self.norm(hidden), kv


def _rotation(positions_BS: Tensor, head_dim: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, 1, S, D/2); angles in float64, since day numbers run to many thousands."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions_BS.device) / head_dim
    angles = positions_BS.to(torch.float64).unsqueeze(-1) * base**-exponent
    return angles.cos().to(dtype).unsqueeze(1), angles.sin().to(dtype).unsqueeze(1)


def _rotate(heads_BHSD: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = heads_BHSD.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
