"""The pre-training objective (Query-as-Anchor §3.2.2): L = L_cl + L_ntp."""

from torch import Tensor


def total_loss(
    contrastive: Tensor | None,
    next_token: Tensor | None,
    *,
    contrastive_weight: float = 1.0,
    next_token_weight: float = 1.0,
) -> Tensor:
    """The weighted sum (the paper's weights are 1 and 1); None leaves a term out, for ablations."""
    terms = [
        loss * weight
        for loss, weight in ((contrastive, contrastive_weight), (next_token, next_token_weight))
        if loss is not None
    ]
    if not terms:
        raise ValueError("both losses are None; at least one must be given.")
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]
