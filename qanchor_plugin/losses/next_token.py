"""Next-token loss of the answer (Query-as-Anchor §3.2.2, L_ntp).

Shape letters: B pairs, T tokens, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from qanchor_plugin.errors import InputDataError

IGNORED = -100
"""The label of a token that is not predicted."""


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each answer token given everything before it.

    Args:
        logits: (B, T, V), position t predicts the token at t + 1.
        labels: (B, T) int64, ``IGNORED`` before the answer and on padding.

    Returns:
        A scalar, float32 (float64 for float64 logits); 0 when no token is labelled.

    Raises:
        InputDataError: shapes do not fit.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2]:
        raise InputDataError(
            f"logits are {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
            "they must be (B, T, V) and (B, T)."
        )
    predicted = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    wanted = labels[:, 1:]
    summed = F.cross_entropy(
        predicted.reshape(-1, logits.shape[-1]), wanted.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )
    return summed / (wanted != IGNORED).sum().clamp(min=1)


def answer_labels(tokens: Tensor, answer_start: Tensor, num_tokens: Tensor) -> Tensor:
    """(B, T) int64 labels: the tokens from ``answer_start`` to ``num_tokens``, ``IGNORED`` elsewhere.

    Args:
        tokens: (B, T) int64, right-padded.
        answer_start: (B,) position of the first answer token.
        num_tokens: (B,) tokens before the padding.
    """
    at = torch.arange(tokens.shape[1], device=tokens.device)[None]
    answered = (at >= answer_start[:, None]) & (at < num_tokens[:, None])
    return tokens.masked_fill(~answered, IGNORED)
