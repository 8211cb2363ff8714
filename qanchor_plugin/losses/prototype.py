"""Prototype loss of soft-prompt tuning (Query-as-Anchor §3.2.3, L_pt).

Shape letters: B users, K classes, D embedding width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.losses.contrastive import DEFAULT_TEMPERATURE


def prototype_loss(
    user: Tensor,
    prototypes: Tensor,
    classes: Tensor,
    *,
    temperature: float = DEFAULT_TEMPERATURE,
    reduction: str = "mean",
) -> Tensor:
    """L_pt = -1/B sum_i log( exp(u_i . p_{y_i} / tau) / sum_k exp(u_i . p_k / tau) ).

    Args:
        user: (B, D), L2-normalised by the caller (embeddings are).
        prototypes: (K, D) p_k, taken as they are.
        classes: (B,) int64 y_i, 0 to K - 1.
        temperature: tau, above 0.
        reduction: ``"mean"``, or ``"none"`` for each row's own.

    Returns:
        A scalar, or (B,) of each row: float32 (float64 for float64 input).

    Raises:
        InputDataError: shapes, a class or the temperature do not fit.
    """
    if user.ndim != 2 or prototypes.shape[1:] != user.shape[1:] or classes.shape != user.shape[:1]:
        raise InputDataError(
            f"user is {tuple(user.shape)}, prototypes {tuple(prototypes.shape)}, classes "
            f"{tuple(classes.shape)}; they must be (B, D), (K, D) and (B,)."
        )
    if not temperature > 0:
        raise InputDataError(f"temperature is {temperature}; it must be above 0.")
    if len(classes) == 0 or int(classes.min()) < 0 or int(classes.max()) >= len(prototypes):
        raise InputDataError(
            f"classes are {sorted(set(classes.tolist()))}; "
            f"there must be some, each 0 to {len(prototypes) - 1}."
        )
    width = torch.promote_types(user.dtype, torch.float32)
    return F.cross_entropy(
        user.to(width) @ prototypes.to(width).T / temperature, classes, reduction=reduction
    )
