"""The fast forward of a Qwen2-like decoder, made of the weights of a transformers model.

It answers what the model's own forward answers, and leaves out what nobody reads:

- tokens of all users stand in one flat row without padding; only attention tells users apart
  (:mod:`..attention`: by user on a CPU, under a mask on other devices);
- a prefill stops at the last layer's keys and values; a suffix's last layer ends at ``<USER_EMB>``;
- in int8, queries, keys and values stay in float32: they are 7% of the work, and Qwen2.5's key biases
  blow up their errors;
- on a CPU without matrix tiles for bfloat16 (AMX), a bfloat16 engine's weights are held in float32: twice as
  fast, and nearer to the exact answer. Keys and values are rounded to the engine's type all the same.

Shape letters: B users, L prefix tokens, S packed suffix tokens, Q queries, N flat tokens, W hidden width,
H query heads, J key heads, D head width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from qanchor_plugin.engine.attention import PrefillAttention, kinds_for
from qanchor_plugin.engine.linear import multiply
from qanchor_plugin.engine.suffix import Packed

KINDS = ("qwen2", "llama")
"""Model types whose layers are built as here; others run through transformers."""
MLP_ROWS = 1024
"""Most rows of one MLP step, so that its inner activations stay small (docs/engine-speed.md)."""
PREFILL_TOKENS = 512
"""Tokens of short prefixes, padded, that a CPU reads together; more is no faster (docs/engine-speed.md)."""
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def supported(model: Any) -> bool:
    """Is it a plain decoder of a known kind, without adapters?"""
    if model.config.model_type not in KINDS or model.config.hidden_act != "silu":
        return False
    linears = [part for layer in model.base_model.layers for part in _linears(layer)]
    return all(type(one) is nn.Linear for one in linears)


def held_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type that weights are held and multiplied in: on a CPU bfloat16 only where it has tiles for it."""
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return torch.float32 if dtype == torch.bfloat16 and device.type == "cpu" and not tiles else dtype


def _linears(layer: Any) -> list[nn.Linear]:
    mlp = [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]
    return [*(getattr(layer.self_attn, name) for name in _PROJECTIONS), *mlp]


def stamp(model: Any) -> tuple[tuple[int, int], ...]:
    """Where a model's weights lie and how often they were changed: a decoder made before is stale after."""
    parts = list(model.base_model.layers.parameters()) + list(model.base_model.norm.parameters())
    return tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for one in parts)


class Decoder:
    """A model's forwards for prefixes and for packed suffixes over their cached keys and values.

    Args:
        model: of a kind that is :func:`supported`.
        int8: output and MLP layers in int8 (on a CPU).
        alone: the model's own linear weights are let go, layer by layer, so that none is held twice.
    """

    def __init__(self, model: Any, *, int8: bool = False, alone: bool = False) -> None:
        base = model.base_model
        weight = base.layers[0].mlp.up_proj.weight
        self.kept, self.device = weight.dtype, weight.device
        self.held = torch.float32 if int8 else held_dtype(self.kept, self.device)
        self.prefilling, self.answering = kinds_for(self.device)
        self.layers = []
        for layer in base.layers:
            self.layers.append(_Layer(layer, self.held, int8=int8))
            if alone:
                for one in _linears(layer):
                    one.weight = nn.Parameter(one.weight.new_empty(0), requires_grad=False)
        self.norm = _Norm(base.norm, self.held)
        self.rotary = base.rotary_emb
        self.num_key_heads, self.head_dim = (
            model.config.num_key_value_heads,
            base.layers[0].self_attn.head_dim,
        )

    def prefill(self, rows_BLW: Tensor, positions_BL: Tensor, valid_BL: Tensor) -> list[Tensor]:
        """Keys and values (B, J, L, D) of each layer in turn, in the engine's type, zeros where padded.

        Args:
            rows_BLW: soft tokens, right-padded.
            positions_BL: int64.
            valid_BL: bool, False where padded.
        """
        num_users, length = valid_BL.shape
        shape = (num_users, self.num_key_heads, length, self.head_dim)
        cache = [torch.zeros(shape, dtype=self.kept, device=self.device) for _ in range(2 * len(self.layers))]
        step = max(1, PREFILL_TOKENS // max(1, length)) if self.device.type == "cpu" else num_users
        for start in range(0, num_users, step):
            run = slice(start, start + step)
            self._fill([one[run] for one in cache], rows_BLW[run], positions_BL[run], valid_BL[run])
        return cache

    def _fill(self, cache: list[Tensor], rows_BLW: Tensor, positions_BL: Tensor, valid_BL: Tensor) -> None:
        """The users' keys and values stand in the cache."""
        attention: PrefillAttention = self.prefilling(valid_BL)
        hidden = rows_BLW[valid_BL].to(self.held)
        rotation = self._rotation(positions_BL[valid_BL])
        for number, layer in enumerate(self.layers):
            query, key, value = layer.heads(hidden, rotation)
            attention.store(key, value, (cache[2 * number], cache[2 * number + 1]))
            if number == len(self.layers) - 1:
                break
            hidden = layer.after(hidden, attention.attend(query, key, value, layer.scaling).flatten(1))

    def answer(
        self,
        rows_BSW: Tensor,
        positions_BS: Tensor,
        packed: Packed,
        cache: Sequence[Tensor],
        valid_BL: Tensor,
    ) -> Tensor:
        """(B, Q, W): the state at each query's ``<USER_EMB>``.

        Args:
            rows_BSW: the packed rows of each user.
            positions_BS: int64.
            packed: which token is of which query.
            cache: keys and values (B, J, L, D) layer by layer, as :meth:`prefill` gives them.
            valid_BL: bool, False where a prefix is padded.
        """
        num_users, size, _ = rows_BSW.shape
        attention = self.answering(packed, valid_BL)
        hidden = rows_BSW.flatten(0, 1).to(self.held)
        rotation = self._rotation(positions_BS.flatten())
        for number, layer in enumerate(self.layers):
            query, key, value = (
                one.view(num_users, size, -1, self.head_dim) for one in layer.heads(hidden, rotation)
            )
            past = (cache[2 * number], cache[2 * number + 1])
            attended = attention.attend(query, key, value, past, layer.scaling)
            if number == len(self.layers) - 1:
                hidden = hidden.view(num_users, size, -1)[:, packed.last_Q].flatten(0, 1)
                attended = attended[:, packed.last_Q]
            hidden = layer.after(hidden, attended.flatten(0, 1).flatten(1))
        return self.norm(hidden).view(num_users, len(packed.last_Q), -1)

    def _rotation(self, positions_N: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (N, 1, D)."""
        like = torch.zeros(0, dtype=self.held, device=self.device)
        cosine, sine = self.rotary(like, positions_N.unsqueeze(0))
        return cosine[0].unsqueeze(1), sine[0].unsqueeze(1)


class _Norm:
    """RMSNorm, summed in float32."""

    def __init__(self, norm: Any, dtype: torch.dtype) -> None:
        self.weight, self.eps = norm.weight.detach().to(dtype), norm.variance_epsilon

    def __call__(self, hidden_NW: Tensor) -> Tensor:
        wide = hidden_NW.float()
        squares = vector_norm(wide, dim=1, keepdim=True).square_().div_(wide.shape[1])
        normed = wide * squares.add_(self.eps).rsqrt_()  # 40% less time than torch's rms_norm on a CPU
        return normed.to(hidden_NW.dtype).mul_(self.weight)


class _Layer:
    """One block's weights, ready to be multiplied."""

    def __init__(self, layer: Any, dtype: torch.dtype, *, int8: bool) -> None:
        exact, rounded = _linears(layer)[:3], _linears(layer)[3:]
        self.heads_in = multiply(exact, dtype, int8=False)
        self.out, self.gate, self.up, self.down = (multiply([one], dtype, int8=int8) for one in rounded)
        self.first_norm = _Norm(layer.input_layernorm, dtype)
        self.second_norm = _Norm(layer.post_attention_layernorm, dtype)
        self.scaling, self.head_dim = layer.self_attn.scaling, layer.self_attn.head_dim
        self.num_heads = [one.out_features // self.head_dim for one in exact]

    def heads(self, hidden_NW: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (N, H, D), keys and values (N, J, D); the first two rotated."""
        heads = self.heads_in(self.first_norm(hidden_NW)).unflatten(1, (-1, self.head_dim))
        queries, keys, values = self.num_heads
        turned, value = heads.split([queries + keys, values], dim=1)
        query, key = _rotate(turned, *rotation).split([queries, keys], dim=1)
        return query, key, value

    def after(self, hidden_NW: Tensor, attended_NW: Tensor) -> Tensor:
        """The block's output from what its heads attended to."""
        hidden = self.out.plus(attended_NW, hidden_NW)
        normed = self.second_norm(hidden)
        steps = -(-len(hidden) // MLP_ROWS)  # equal: a short one reads every weight for little
        if steps <= 1:
            return self._mlp(normed, hidden)
        parts = zip(normed.tensor_split(steps), hidden.tensor_split(steps), strict=True)
        return torch.cat([self._mlp(*part) for part in parts])

    def _mlp(self, normed_NW: Tensor, hidden_NW: Tensor) -> Tensor:
        """The MLP's answer plus what came in."""
        return self.down.plus(self.up.times(normed_NW, self.gate.silu(normed_NW)), hidden_NW)


def _rotate(heads_NHD: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """The first half of every head is turned against the second."""
    turned = heads_NHD * cosine
    halves, sines = heads_NHD.chunk(2, dim=-1), sine.chunk(2, dim=-1)
    first, second = turned.chunk(2, dim=-1)
    first.addcmul_(halves[1], sines[0], value=-1)
    second.addcmul_(halves[0], sines[1])
    return turned
