"""Did training work? Figures that need no label, from users that training did not see.

Shape letters: P pairs, D embedding width, N embeddings.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.training.batches import PairBatch
from qanchor_plugin.training.towers import Towers

Float64 = npt.NDArray[np.float64]

MIN_RANK = 4.0
MAX_COSINE = 0.98
MIN_QUESTION_SHARE, MAX_QUESTION_SHARE = 0.02, 0.98


@dataclass(frozen=True, kw_only=True)
class Sanity:
    """What held-out users show.

    Attributes:
        num_users, num_pairs: that the figures are of.
        outcome_accuracy: share of pairs with alternatives whose own answer is nearest (0 to 1).
        outcome_baseline: the same of always giving each scale's most frequent answer.
        future_accuracy: share of open pairs whose own answer is the nearest of all open answers of the
            batch; NaN without any. ``future_chance`` is what guessing gives.
        effective_rank: exp(entropy) of the variance along principal axes of the embeddings (1 to D).
        mean_cosine: between embeddings of different users for the same question (1: collapsed).
        question_share: of the embeddings' variance that lies between questions (0: the query is not heard;
            1: the user is not).
        mean_norm: of the embeddings; 1 by construction.
        warnings: what looks wrong, and what to do; empty when all is well.
    """

    num_users: int
    num_pairs: int
    outcome_accuracy: float
    outcome_baseline: float
    future_accuracy: float
    future_chance: float
    effective_rank: float
    mean_cosine: float
    question_share: float
    mean_norm: float
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values; NaN becomes None."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in values.items()}


def sanity_of(towers: Towers, held_out: Iterable[PairBatch]) -> Sanity:
    """The figures over batches of held-out users.

    Raises:
        InputDataError: there is no batch.
    """
    users: list[Float64] = []
    questions: list[str] = []
    scored: list[tuple[float, float]] = []
    opened: list[tuple[float, float]] = []
    num_users = 0
    with torch.no_grad():
        for batch in held_out:
            num_users += len(batch.readings)
            read = towers.read(batch.readings, batch.vectors_VE)
            users_PD = towers.users(read, batch.reading_of_pair, batch.queries).double().cpu().numpy()
            users.append(users_PD)
            questions += batch.queries
            scored += _scored(towers, batch, users_PD)
            opened += _opened(towers, batch, users_PD)
    if not users:
        raise InputDataError("no pair of a held-out user; make pairs of more users (1 in 20 is held out).")
    return judged(
        np.concatenate(users),
        questions,
        num_users=num_users,
        scored=np.array(scored),
        opened=np.array(opened),
    )


def judged(
    embeddings_ND: Float64, questions: list[str], *, num_users: int, scored: Float64, opened: Float64
) -> Sanity:
    """The figures of embeddings and what they were asked.

    Args:
        embeddings_ND: of every pair.
        questions: of every pair.
        num_users: distinct readings behind them.
        scored: (P, 2) own answer nearest (0 or 1), most frequent answer right (0 or 1).
        opened: (P', 2) own answer nearest of all (0 or 1), what guessing gives.
    """
    within, between = _variances(embeddings_ND, questions)
    figures = {
        "outcome_accuracy": _mean(scored, 0),
        "outcome_baseline": _mean(scored, 1),
        "future_accuracy": _mean(opened, 0),
        "future_chance": _mean(opened, 1),
        "effective_rank": effective_rank(embeddings_ND),
        "mean_cosine": _mean_cosine(embeddings_ND, questions),
        "question_share": between / max(within + between, 1e-12),
        "mean_norm": float(np.linalg.norm(embeddings_ND, axis=1).mean()),
    }
    return Sanity(
        num_users=num_users,
        num_pairs=len(embeddings_ND),
        warnings=tuple(_warnings(figures)),
        **figures,
    )


def effective_rank(embeddings_ND: Float64) -> float:
    """exp of the entropy of the shares of variance along principal axes (Roy and Vetterli 2007)."""
    centred = embeddings_ND - embeddings_ND.mean(axis=0)
    variance = np.linalg.svd(centred, compute_uv=False) ** 2
    if variance.sum() <= 1e-12:
        return 1.0
    shares = variance / variance.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _warnings(figures: dict[str, float]) -> list[str]:
    found = []
    if figures["effective_rank"] < MIN_RANK:
        found.append(
            f"collapse: embeddings use {figures['effective_rank']:.1f} directions; lower the learning rate."
        )
    if figures["mean_cosine"] > MAX_COSINE:
        found.append(
            f"collapse: users' embeddings have a mean cosine of {figures['mean_cosine']:.3f}; train longer."
        )
    share = figures["question_share"]
    if not MIN_QUESTION_SHARE < share < MAX_QUESTION_SHARE:
        what = "the query is not heard" if share <= MIN_QUESTION_SHARE else "the user is not heard"
        found.append(f"{what}: {share:.1%} of the variance lies between questions; declare group_by keys.")
    if figures["outcome_accuracy"] < figures["outcome_baseline"]:
        found.append(
            "held-out outcomes are told worse than by each question's most frequent answer; train longer, or "
            "on more users."
        )
    return found


def _scored(towers: Towers, batch: PairBatch, users_PD: Float64) -> list[tuple[float, float]]:
    asked = [pair for pair, all_ in enumerate(batch.alternatives) if all_]
    texts = list(dict.fromkeys(one for pair in asked for one in batch.alternatives[pair]))
    if not asked:
        return []
    made = dict(zip(texts, towers.answers(texts).double().cpu().numpy(), strict=True))
    counted: dict[tuple[str, ...], dict[str, int]] = {}
    for pair in asked:
        of_scale = counted.setdefault(batch.alternatives[pair], {})
        of_scale[batch.answers[pair]] = of_scale.get(batch.answers[pair], 0) + 1
    rows = []
    for pair in asked:
        scale = batch.alternatives[pair]
        nearest = max(scale, key=lambda one: float(made[one] @ users_PD[pair]))
        usual = max(scale, key=lambda one: counted[scale].get(one, 0))
        rows.append((float(nearest == batch.answers[pair]), float(usual == batch.answers[pair])))
    return rows


def _opened(towers: Towers, batch: PairBatch, users_PD: Float64) -> list[tuple[float, float]]:
    pairs = [pair for pair, all_ in enumerate(batch.alternatives) if not all_]
    texts = list(dict.fromkeys(batch.answers[pair] for pair in pairs))
    if len(texts) < 2:
        return []
    made = towers.answers(texts).double().cpu().numpy()
    nearest = (users_PD[pairs] @ made.T).argmax(axis=1)
    return [
        (float(texts[near] == batch.answers[pair]), 1.0 / len(texts))
        for pair, near in zip(pairs, nearest, strict=True)
    ]


def _variances(embeddings_ND: Float64, questions: list[str]) -> tuple[float, float]:
    """(within questions, between them): mean squared distances that add up to the total variance."""
    centre = embeddings_ND.mean(axis=0)
    within = between = 0.0
    for mine in _of_each(questions):
        mean = embeddings_ND[mine].mean(axis=0)
        within += float(((embeddings_ND[mine] - mean) ** 2).sum())
        between += len(mine) * float(((mean - centre) ** 2).sum())
    return within / len(embeddings_ND), between / len(embeddings_ND)


def _mean_cosine(embeddings_ND: Float64, questions: list[str]) -> float:
    """Over questions asked of two users at least, weighted by users; NaN without any."""
    sums, weights = 0.0, 0
    for mine in _of_each(questions):
        num = len(mine)
        if num > 1:
            unit = embeddings_ND[mine] / np.linalg.norm(embeddings_ND[mine], axis=1, keepdims=True)
            sums += num * (float((unit.sum(axis=0) ** 2).sum()) - num) / (num * (num - 1))
            weights += num
    return sums / weights if weights else float("nan")


def _of_each(questions: list[str]) -> list[npt.NDArray[np.intp]]:
    asked = np.array(questions)
    return [np.flatnonzero(asked == one) for one in dict.fromkeys(questions)]


def _mean(rows: Float64, column: int) -> float:
    return float(rows[:, column].mean()) if len(rows) else float("nan")
