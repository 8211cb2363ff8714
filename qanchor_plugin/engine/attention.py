"""Attention of the flat forward (:mod:`..decoder`): on a CPU its flash kernel, elsewhere PyTorch's choice.

A forward makes one :class:`PrefillAttention` or :class:`AnswerAttention` and calls it in every layer. Both
kinds give the same numbers but for rounding. Shape letters: B users, L prefix tokens, S packed suffix tokens,
Q queries, T tokens of the longest query, N flat tokens, H query heads, J key heads, G = H / J, D head width,
K keys.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from qanchor_plugin.engine.suffix import Packed, block_mask

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

Past = tuple[Tensor, Tensor]
"""A layer's keys and values (B, J, L, D), zeros where padded."""


class PrefillAttention(Protocol):
    """Prefixes of several users in one flat row of tokens.

    Args of the constructor: valid_BL, bool, False where padded.
    """

    def __init__(self, valid_BL: Tensor) -> None: ...

    def store(self, key_NJD: Tensor, value_NJD: Tensor, past: Past) -> None:
        """The layer's keys and values stand in the cache, in its type."""

    def attend(self, query_NHD: Tensor, key_NJD: Tensor, value_NJD: Tensor, scaling: float) -> Tensor:
        """(N, H, D): each token attends to earlier ones of its user and to itself."""


class AnswerAttention(Protocol):
    """Packed queries of several users over their prefixes.

    Args of the constructor: the queries; valid_BL, bool, False where a prefix is padded.
    """

    def __init__(self, packed: Packed, valid_BL: Tensor) -> None: ...

    def attend(
        self, query_BSHD: Tensor, key_BSJD: Tensor, value_BSJD: Tensor, past: Past, scaling: float
    ) -> Tensor:
        """(B, S, H, D): each token attends to its user's prefix, and to its query up to itself."""


def kinds_for(device: torch.device) -> tuple[type[PrefillAttention], type[AnswerAttention]]:
    """What attends on a device."""
    return (FlashPrefill, FlashAnswer) if device.type == "cpu" else (MaskedPrefill, MaskedAnswer)


class FlashPrefill:
    """One causal flash call a user, without mask or padding."""

    def __init__(self, valid_BL: Tensor) -> None:
        self.lengths = valid_BL.sum(1).tolist()

    def store(self, key_NJD: Tensor, value_NJD: Tensor, past: Past) -> None:
        for flat, whole in zip((key_NJD, value_NJD), past, strict=True):
            for user, own in enumerate(flat.split(self.lengths)):
                whole[user, :, : len(own)] = own.transpose(0, 1)

    def attend(self, query_NHD: Tensor, key_NJD: Tensor, value_NJD: Tensor, scaling: float) -> Tensor:
        out = torch.empty_like(query_NHD, memory_format=torch.contiguous_format)
        parts = (one.split(self.lengths) for one in (query_NHD, key_NJD, value_NJD, out))
        for query_LHD, key_LJD, value_LJD, out_LHD in zip(*parts, strict=True):
            num_key_heads = key_LJD.shape[1]
            query_JGLD = query_LHD.unflatten(1, (num_key_heads, -1)).permute(1, 2, 0, 3)
            key, value = (
                one.transpose(0, 1).unsqueeze(1).expand(query_JGLD.shape) for one in (key_LJD, value_LJD)
            )
            attended = scaled_dot_product_attention(query_JGLD, key, value, is_causal=True, scale=scaling)
            out_LHD.unflatten(1, (num_key_heads, -1)).copy_(attended.permute(2, 0, 1, 3))
        return out


class FlashAnswer:
    """Prefix and own query apart, joined by their log-sum-exp: no mask, no copy of the keys, and the tokens
    of other queries are not even multiplied.

    ``are_apart``: queries of one length without a shared token stand one after another, nothing to gather.
    """

    def __init__(self, packed: Packed, valid_BL: Tensor) -> None:
        self.lengths = valid_BL.sum(1).tolist()
        inside_QT = packed.path_QT >= 0
        self.token_QT = torch.where(inside_QT, packed.path_QT, packed.path_QT[:, :1])
        places_QT = torch.arange(packed.path_QT.numel()).view(packed.path_QT.shape)
        self.place_S = torch.zeros(len(packed.rows_SC), dtype=torch.int64)  # of a shared token, any will do
        self.place_S[packed.path_QT[inside_QT]] = places_QT[inside_QT]
        self.are_apart = torch.equal(self.token_QT.flatten(), torch.arange(len(packed.rows_SC)))

    def attend(
        self, query_BSHD: Tensor, key_BSJD: Tensor, value_BSJD: Tensor, past: Past, scaling: float
    ) -> Tensor:
        own, total = self._own(query_BSHD, key_BSJD, value_BSJD, scaling)
        users = enumerate(zip(query_BSHD, own, total, self.lengths, strict=True))
        attended = [
            _joined(query, [one[user, :, :count] for one in past], found, of, scaling)
            for user, (query, found, of, count) in users
        ]
        return torch.stack(attended)

    def _own(
        self, query_BSHD: Tensor, key_BSJD: Tensor, value_BSJD: Tensor, scaling: float
    ) -> tuple[Tensor, Tensor]:
        """What each token finds in its own query (B, S, H, D), and the log-sum-exp of its scores (B, S, H);
        float32, all queries at once."""
        num_users, _, num_key_heads, _ = key_BSJD.shape
        query = self._by_query(query_BSHD).unflatten(3, (num_key_heads, -1)).permute(0, 1, 3, 4, 2, 5)
        query = query.flatten(0, 2).float()
        key, value = (
            self._by_query(one).transpose(2, 3).flatten(0, 2).float().unsqueeze(1).expand(query.shape)
            for one in (key_BSJD, value_BSJD)
        )
        attended, total = _flash(query, key, value, is_causal=True, scale=scaling)
        back = (num_users, len(self.token_QT), num_key_heads)
        attended = attended.unflatten(0, back).permute(0, 1, 4, 2, 3, 5).flatten(3, 4)
        total = total.unflatten(0, back).permute(0, 1, 4, 2, 3).flatten(3)
        return self._by_token(attended), self._by_token(total)

    def _by_query(self, tokens_BSX: Tensor) -> Tensor:
        """(B, Q, T, ...)"""
        if self.are_apart:
            return tokens_BSX.unflatten(1, self.token_QT.shape)
        return tokens_BSX[:, self.token_QT]

    def _by_token(self, paths_BQTX: Tensor) -> Tensor:
        """(B, S, ...)"""
        flat = paths_BQTX.flatten(1, 2)
        return flat if self.are_apart else flat[:, self.place_S]


def _joined(
    query_SHD: Tensor, past: list[Tensor], own_SHD: Tensor, own_total_SH: Tensor, scaling: float
) -> Tensor:
    """(S, H, D): attention to the prefix's keys and values (J, L, D) and what was found in the own query."""
    key, value = (one.to(query_SHD.dtype).unsqueeze(0) for one in past)
    if not key.shape[2]:
        return own_SHD.to(query_SHD.dtype)
    num_key_heads = key.shape[1]
    folded = query_SHD.unflatten(1, (num_key_heads, -1)).permute(1, 2, 0, 3).flatten(1, 2).unsqueeze(0)
    attended, total = _flash(folded, key, value, scale=scaling)
    attended = attended[0].unflatten(1, (-1, len(query_SHD))).permute(2, 0, 1, 3).flatten(1, 2)
    total = total[0].unflatten(1, (-1, len(query_SHD))).permute(2, 0, 1).flatten(1)
    share = torch.sigmoid(total - own_total_SH).unsqueeze(2)
    return torch.lerp(own_SHD, attended.float(), share).to(query_SHD.dtype)


class MaskedPrefill:
    """All users in one causal call over padded rows; all that is not attention stays without padding.

    Tokens' places are looked up once, by number: an index of booleans would make the host wait for the device
    at each use.
    """

    def __init__(self, valid_BL: Tensor) -> None:
        self.shape = valid_BL.shape
        self.user_N, self.place_N = valid_BL.nonzero(as_tuple=True)

    def store(self, key_NJD: Tensor, value_NJD: Tensor, past: Past) -> None:
        for flat, whole in zip((key_NJD, value_NJD), past, strict=True):
            whole.transpose(1, 2)[self.user_N, self.place_N] = flat.to(whole.dtype)

    def attend(self, query_NHD: Tensor, key_NJD: Tensor, value_NJD: Tensor, scaling: float) -> Tensor:
        query, key, value = (self._padded(one) for one in (query_NHD, key_NJD, value_NJD))
        attended = _together(query, key.transpose(1, 2), value.transpose(1, 2), None, scaling)
        return attended[self.user_N, self.place_N]

    def _padded(self, flat_NXD: Tensor) -> Tensor:
        """(B, L, ..., D): what is padded stands after every real token, which so never sees it."""
        whole = flat_NXD.new_zeros(*self.shape, *flat_NXD.shape[1:])
        whole[self.user_N, self.place_N] = flat_NXD
        return whole


class MaskedAnswer:
    """All users in one call under the block mask; a user's keys are copied once a pack and layer, never a
    query."""

    def __init__(self, packed: Packed, valid_BL: Tensor) -> None:
        self.allowed_BSK = block_mask(packed.sees_SS, valid_BL)

    def attend(
        self, query_BSHD: Tensor, key_BSJD: Tensor, value_BSJD: Tensor, past: Past, scaling: float
    ) -> Tensor:
        key, value = (
            torch.cat([old.to(own.dtype), own.transpose(1, 2)], dim=2)
            for old, own in zip(past, (key_BSJD, value_BSJD), strict=True)
        )
        return _together(query_BSHD, key, value, self.allowed_BSK, scaling)


def _together(
    query_BSHD: Tensor, key_BJKD: Tensor, value_BJKD: Tensor, allowed_BSK: Tensor | None, scaling: float
) -> Tensor:
    """(B, S, H, D): attention under a mask, causal without one; key heads are read through a stride of 0."""
    num_users, num_key_heads = key_BJKD.shape[:2]
    query = query_BSHD.unflatten(2, (num_key_heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)
    key, value = (
        one.flatten(0, 1).unsqueeze(1).expand(-1, query.shape[1], -1, -1) for one in (key_BJKD, value_BJKD)
    )
    mask = None
    if allowed_BSK is not None:
        mask = allowed_BSK.repeat_interleave(num_key_heads, dim=0).unsqueeze(1)
    attended = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    return attended.unflatten(0, (num_users, num_key_heads)).permute(0, 3, 1, 2, 4).flatten(2, 3)
