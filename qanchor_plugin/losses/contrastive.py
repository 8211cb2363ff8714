"""Contrastive loss between the anchor tower and the semantic tower, with the margin filter.

Query-as-Anchor (arXiv 2602.14492) §3.2.2, its equation for L_cl and Z_i.
Shape letters: B own pairs, W pairs of every device (W = B on one), D embedding width.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from qanchor_plugin.errors import InputDataError

Variant = Literal["paper", "code"]

DEFAULT_TEMPERATURE = 0.07
DEFAULT_MARGIN = 0.1
"""Ours: the paper names c_margin and gives no figure."""


def contrastive_loss(
    user: Tensor,
    answer: Tensor,
    *,
    temperature: float = DEFAULT_TEMPERATURE,
    margin: float | None = DEFAULT_MARGIN,
    variant: Variant = "paper",
    gathered_user: Tensor | None = None,
    gathered_answer: Tensor | None = None,
    row_offset: int = 0,
    excluded: Tensor | None = None,
) -> Tensor:
    """L_cl = -1/B sum_i log( exp(s(u_i,v_i)/tau) / Z_i ), s the cosine.

    ``paper``: Z_i = e^{s(u_i,v_i)/tau} + sum_{j!=i} m_ij [e^{s(u_i,v_j)/tau} + e^{s(u_i,u_j)/tau}
    + e^{s(v_i,v_j)/tau}], m_ij = 0 where s(u_i,u_j) or s(u_i,v_j) > s(u_i,v_i) + margin.
    ``code`` (the authors' repository): terms u-v, u-u and v-u, each masked by its own similarity.

    Args:
        user: (B, D) anchor-tower embeddings, any float dtype; computed in float32 at least.
        answer: (B, D) semantic-tower embeddings of the same pairs.
        temperature: tau, above 0.
        margin: c_margin; None turns the filter off.
        gathered_user, gathered_answer: (W, D) of every device, own rows among them.
        row_offset: where own row 0 stands in the gathered rows.
        excluded: (B, W) bool, pairs that are never negatives (such as the same user twice).

    Returns:
        A scalar, float32 (float64 for float64 input).

    Raises:
        InputDataError: shapes do not fit, or the temperature is not above 0.
    """
    _check_temperature(temperature)
    u_BD, v_BD, u_WD, v_WD = _unit_rows(user, answer, gathered_user, gathered_answer, row_offset)
    uv_BW = u_BD @ v_WD.T
    uu_BW = u_BD @ u_WD.T
    third_BW = v_BD @ v_WD.T if variant == "paper" else v_BD @ u_WD.T
    positive_B = (u_BD * v_BD).sum(-1)
    never_BW = _never_negative(uv_BW, row_offset, excluded)
    terms = (uv_BW, uu_BW, third_BW)
    masks = _filtered(terms, positive_B, margin, variant)
    negatives = [s.masked_fill(never_BW | m, -torch.inf) for s, m in zip(terms, masks, strict=True)]
    logits = torch.cat([positive_B[:, None], *negatives], dim=1) / temperature
    return (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()


def negatives_kept(
    user: Tensor,
    answer: Tensor,
    *,
    margin: float | None = DEFAULT_MARGIN,
    variant: Variant = "paper",
    gathered_user: Tensor | None = None,
    gathered_answer: Tensor | None = None,
    row_offset: int = 0,
) -> Tensor:
    """(3, B, W) bool: which u-v, u-u and third terms stay in Z_i; shows what the filter removes.

    The three planes are equal for ``paper``. Arguments as in :func:`contrastive_loss`.
    """
    u_BD, v_BD, u_WD, v_WD = _unit_rows(user, answer, gathered_user, gathered_answer, row_offset)
    third_BW = v_BD @ v_WD.T if variant == "paper" else v_BD @ u_WD.T
    terms = (u_BD @ v_WD.T, u_BD @ u_WD.T, third_BW)
    masks = _filtered(terms, (u_BD * v_BD).sum(-1), margin, variant)
    return ~(torch.stack(masks) | _never_negative(terms[0], row_offset, None))


@torch.no_grad()
def retrieval_accuracy(
    user: Tensor, answer: Tensor, *, gathered_answer: Tensor | None = None, row_offset: int = 0
) -> float:
    """Share of users whose own answer is the most similar of all (0 to 1); ties count as missed."""
    u_BD, _, _, v_WD = _unit_rows(user, answer, None, gathered_answer, row_offset)
    uv_BW = u_BD @ v_WD.T
    own = torch.arange(len(u_BD), device=user.device) + row_offset
    positive_B1 = uv_BW.gather(1, own[:, None])
    return float(((uv_BW >= positive_B1).sum(1) == 1).double().mean())


def _filtered(
    terms: tuple[Tensor, Tensor, Tensor], positive_B: Tensor, margin: float | None, variant: Variant
) -> tuple[Tensor, Tensor, Tensor]:
    """True where a term is a likely false negative and leaves the sum (1 - m_ij)."""
    if variant not in ("paper", "code"):
        raise InputDataError(f"loss variant is {variant!r}; accepted are 'paper' and 'code'.")
    if margin is None:
        none = torch.zeros_like(terms[0], dtype=torch.bool)
        return none, none, none
    bound_B1 = positive_B.detach()[:, None] + margin
    above = [term.detach() > bound_B1 for term in terms]
    if variant == "code":
        return above[0], above[1], above[2]
    either = above[0] | above[1]
    return either, either, either


def _never_negative(uv_BW: Tensor, row_offset: int, excluded: Tensor | None) -> Tensor:
    own = torch.arange(uv_BW.shape[0], device=uv_BW.device) + row_offset
    never = torch.zeros_like(uv_BW, dtype=torch.bool).scatter_(1, own[:, None], True)
    if excluded is None:
        return never
    if excluded.shape != uv_BW.shape:
        raise InputDataError(f"excluded is {tuple(excluded.shape)}; it must be {tuple(uv_BW.shape)}.")
    return never | excluded


def _unit_rows(
    user: Tensor, answer: Tensor, all_users: Tensor | None, all_answers: Tensor | None, row_offset: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    all_users = user if all_users is None else all_users
    all_answers = answer if all_answers is None else all_answers
    if user.ndim != 2 or user.shape != answer.shape or len(user) == 0:
        raise InputDataError(
            f"user is {tuple(user.shape)} and answer {tuple(answer.shape)}; both must be (B, D), B >= 1."
        )
    for rows in (all_users, all_answers):
        if rows.shape[1:] != user.shape[1:] or not 0 <= row_offset <= len(rows) - len(user):
            raise InputDataError(
                f"gathered rows are {tuple(rows.shape)} at offset {row_offset}; they must be (W, "
                f"{user.shape[1]}) and hold the {len(user)} own rows from that offset on."
            )
    width = torch.promote_types(user.dtype, torch.float32)
    u, v, w, x = (F.normalize(rows.to(width), dim=-1) for rows in (user, answer, all_users, all_answers))
    return u, v, w, x


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise InputDataError(f"temperature is {temperature}; it must be above 0 (the paper's is 0.07).")
