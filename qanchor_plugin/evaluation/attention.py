"""Where ``<USER_EMB>`` looks: shares of attention by source, recomputed from the modules' own inputs.

Fused attention returns no weights, so the inputs of each block are caught and the softmax is done again.
Shape letters: N tokens (prefix, then suffix), L prefix tokens, H heads, D head width, C token width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qanchor_plugin.engine.build_prefix import restored
from qanchor_plugin.engine.engine import QueryAnchorEngine
from qanchor_plugin.engine.features import age_features
from qanchor_plugin.engine.meaning import MeaningAttention, MeaningBackbone, _rotate
from qanchor_plugin.engine.prefix import DAY_OFFSET, Prefix, day_number, layout
from qanchor_plugin.engine.suffix import PreparedQuery
from qanchor_plugin.errors import EngineError
from qanchor_plugin.sequence.slice import UserSlice

QUESTION, USER_TOKEN, START = "the question itself", "user token", "start"


@dataclass(frozen=True, kw_only=True)
class _Caught:
    """One block's attention: the module and what it was called with."""

    attention: MeaningAttention
    arguments: tuple[Any, ...]


def modality_attention(
    engine: QueryAnchorEngine,
    slices: Sequence[UserSlice],
    prefixes: Sequence[Prefix],
    query: PreparedQuery,
) -> dict[str, float]:
    """Mean share of attention (0 to 1, summing to 1) that each source gets at ``<USER_EMB>``.

    Averaged over users, the last block's heads; a modality's share is that of all its tokens (its summary,
    groups, events and their marks).

    Args:
        engine: of kind ``meaning``.
        slices: the users, each at its cutoff.
        prefixes: of the slices, in the same order.
        query: prepared by the engine.

    Raises:
        EngineError: another kind of backbone, or nobody given.
    """
    if not isinstance(engine.modules.backbone, MeaningBackbone) or not slices:
        raise EngineError(
            f"engine {engine.config.name!r}, {len(slices)} users: attention is read from backbones of kind "
            "'meaning', over one user or more."
        )
    total: dict[str, float] = {}
    for user, prefix in zip(slices, prefixes, strict=True):
        weights_HN = last_attention(engine, user, prefix, query)[-1]
        for source, share in zip(
            sources_of(engine, user, prefix, weights_HN.shape[1]), weights_HN.mean(0), strict=True
        ):
            total[source] = total.get(source, 0.0) + float(share)
    return {source: share / len(slices) for source, share in sorted(total.items())}


def sources_of(engine: QueryAnchorEngine, user: UserSlice, prefix: Prefix, num_tokens: int) -> list[str]:
    """Each token's source: a modality's name, the user token, the start, or the question."""
    slots = layout(user, engine.config)
    template = len(prefix.tokens) - len(slots)
    named = [slot.modality or USER_TOKEN for slot in slots]
    return [START] * template + named + [QUESTION] * (num_tokens - len(prefix.tokens))


@torch.inference_mode()
def last_attention(
    engine: QueryAnchorEngine, user: UserSlice, prefix: Prefix, query: PreparedQuery
) -> list[npt.NDArray[np.float32]]:
    """(H, N) float32 for each block: the weights with which ``<USER_EMB>`` reads every token."""
    modules = engine.modules
    caught: list[_Caught] = []
    blocks = modules.backbone.layers if isinstance(modules.backbone, MeaningBackbone) else []
    hooks = [
        block.attention.register_forward_pre_hook(
            lambda module, arguments: caught.append(_Caught(attention=module, arguments=arguments))
        )
        for block in blocks
    ]
    try:
        rows_1NC, positions_1N, num_suffix = _full_input(engine, user, prefix, query)
        modules.full(rows_1NC, positions_1N, num_suffix)
    finally:
        for hook in hooks:
            hook.remove()
    return [_last_weights(one).float().cpu().numpy() for one in caught]


def _full_input(
    engine: QueryAnchorEngine, user: UserSlice, prefix: Prefix, query: PreparedQuery
) -> tuple[Tensor, Tensor, int]:
    """Rows (1, N, C) and positions (1, N) of prefix and suffix, and the suffix's length."""
    config, modules = engine.config, engine.modules
    today = day_number(user.cutoff, config.epoch_day)
    soft_LC, suffix = (
        restored(prefix.tokens, config.token_dtype).float(),
        torch.from_numpy(query.rows).clone(),
    )
    if modules.suffix.age is not None:
        age = None if prefix.as_of is None else today - day_number(prefix.as_of, config.epoch_day)
        told = modules.suffix.age(torch.from_numpy(age_features([age])).to(engine.device)).cpu()
        suffix[-1, : config.hidden] += told[0]
    count = len(suffix)
    start = len(soft_LC) if config.time == "index" else DAY_OFFSET + today - count + 1
    positions = torch.cat([torch.from_numpy(prefix.positions).long(), torch.arange(start, start + count)])
    rows = torch.cat([soft_LC, suffix])
    return rows[None].to(engine.device), positions[None].to(engine.device), count


def _last_weights(caught: _Caught) -> Tensor:
    """(H, N): softmax scores of the last token, meaning heads first."""
    attention = caught.attention
    hidden, asked, meaning, (cosine, sine), allowed, _, _ = caught.arguments
    may_see_N = allowed[0, 0, -1]
    by_meaning_HN = attention.beta[:, None] * (meaning[0, 0] @ asked[0, -1])[None]
    key = _rotate(attention._heads(attention.key(hidden)), cosine, sine)
    last = _rotate(attention._heads(attention.query(hidden[:, -1:])), cosine[:, :, -1:], sine[:, :, -1:])
    ordinary_HN = (last @ key.transpose(-1, -2))[0, :, 0] / attention.head_dim**0.5
    scores_HN = torch.cat([by_meaning_HN, ordinary_HN])
    return scores_HN.masked_fill(~may_see_N, -torch.inf).softmax(-1)
