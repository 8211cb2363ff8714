"""What pre-training minimises: L = L_cl + L_ntp of the paper, and the two terms that small data needs.

- contrastive and next token (Query-as-Anchor 3.2.2), on one pair a reading, an open one if any.
- outcome: a pair with ``alternatives`` must choose its answer among them by cosine, as a small classification
  whose classes are texts (the semantic tower's).
- outlook: through one linear map shared by all questions, each embedding must tell the reading's OTHER
  outcomes too, so that a scenario's embedding keeps what is generally known of the user.

Shape letters: B readings, P pairs, T outcomes told, K alternatives, A answers, D embedding width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qanchor_plugin.engine.engine import QueryAnchorEngine
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.losses import (
    DEFAULT_MARGIN,
    DEFAULT_TEMPERATURE,
    contrastive_loss,
    gather_rows,
    retrieval_accuracy,
)
from qanchor_plugin.losses.contrastive import Variant
from qanchor_plugin.training.answer_words import AnswerWords
from qanchor_plugin.training.step import StepLoss
from qanchor_plugin.training.towers import Read, Towers

if TYPE_CHECKING:
    from qanchor_plugin.training.batches import PairBatch


@dataclass(frozen=True, kw_only=True)
class ObjectivePlan:
    """Weights and shapes of the loss's terms; a weight of 0 leaves a term out (ablations).

    Attributes:
        contrastive_weight, next_token_weight: of the paper's two losses (its weights are 1 and 1).
        outcome_weight, outlook_weight: of ours.
        temperature: tau of every cosine.
        margin: c_margin of the contrastive loss's filter; None turns it off.
        variant: of the contrastive loss. The ``paper``'s masks a pair where two users look alike, and a small
            engine's users all do at first (mean cosine .95): no negative is left, and the loss is 0. ``code``
            masks each term by its own similarity.
        max_open_pairs: readings of a batch whose open pair is contrasted and predicted; each open answer is
            new to the sentence encoder, which costs more than all else in a step of the demo engine.
        max_answer_words: open answers are read so far.
    """

    contrastive_weight: float = 0.1
    next_token_weight: float = 0.1
    outcome_weight: float = 1.0
    outlook_weight: float = 1.0
    temperature: float = DEFAULT_TEMPERATURE
    margin: float | None = DEFAULT_MARGIN
    variant: Variant = "code"
    max_open_pairs: int = 16
    max_answer_words: int = 24

    def __post_init__(self) -> None:
        weights = {name: value for name, value in vars(self).items() if name.endswith("_weight")}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise InputDataError(f"weights are {weights}; give each 0 or more, one at least above 0.")
        if self.max_open_pairs < 2 or self.max_answer_words < 1:
            raise InputDataError(
                f"max_open_pairs is {self.max_open_pairs}, max_answer_words {self.max_answer_words}; give 2 "
                "and 1 at least."
            )


class Objective(nn.Module):
    """The loss of a batch of pairs; holds the engine's modules and heads that only training needs."""

    def __init__(self, engine: QueryAnchorEngine, plan: ObjectivePlan | None = None) -> None:
        super().__init__()
        self.plan = plan or ObjectivePlan()
        self.modules_trained = engine.modules
        self.towers = Towers(engine)
        self.outlook = nn.Linear(engine.config.embedding_dim, engine.config.embedding_dim)
        nn.init.eye_(self.outlook.weight)
        nn.init.zeros_(self.outlook.bias)
        self.words = AnswerWords(engine)

    def forward(self, batch: "PairBatch") -> StepLoss:
        """The weighted sum of the terms that the batch has pairs for.

        Raises:
            InputDataError: the plan's terms find nothing in the batch.
        """
        plan = self.plan
        read = self.towers.read(batch.readings, batch.vectors_VE)
        users_PD = self.towers.users(read, batch.reading_of_pair, batch.queries)
        chosen = one_pair_a_reading(batch)[: plan.max_open_pairs]
        said = [self._cut(batch, pair) for pair in chosen]
        scales = dict.fromkeys([*batch.alternatives, *batch.told_alternatives])
        texts = dict.fromkeys([*said, *(one for scale in scales for one in scale)])
        answers_AD = self.towers.answers(list(texts))
        row_of = {text: row for row, text in enumerate(texts)}
        terms: dict[str, Tensor] = {}
        terms |= self._by_alternatives(batch, users_PD, answers_AD, row_of)
        users_BD, own_BD = users_PD[chosen], answers_AD[[row_of[text] for text in said]]
        if plan.contrastive_weight and len(chosen) > 1:
            terms["contrastive"] = self._contrastive(users_BD, own_BD, said)
        if plan.next_token_weight:
            terms["next_token"] = self._next_token(read, batch, chosen, said)
        weights = {name: getattr(plan, f"{name}_weight") for name in terms}
        used = [terms[name] * weight for name, weight in weights.items() if weight]
        if not used:
            raise InputDataError(
                f"the batch has nothing for the terms of {plan}; build pairs of the kinds that they need."
            )
        parts = {name: float(value.detach()) for name, value in terms.items()}
        parts["accuracy"] = retrieval_accuracy(users_BD, own_BD)
        parts["num_tokens"] = float(read.valid_BL.sum())
        return StepLoss(loss=torch.stack(used).sum(), parts=parts)

    def _contrastive(self, users_BD: Tensor, answers_BD: Tensor, answers: Sequence[str]) -> Tensor:
        users_WD, offset = gather_rows(users_BD)
        answers_WD, _ = gather_rows(answers_BD)
        return contrastive_loss(
            users_BD,
            answers_BD,
            temperature=self.plan.temperature,
            margin=self.plan.margin,
            variant=self.plan.variant,
            gathered_user=users_WD,
            gathered_answer=answers_WD,
            row_offset=offset,
            excluded=_same_text(answers, len(users_WD), offset, users_BD.device),
        )

    def _cut(self, batch: "PairBatch", pair: int) -> str:
        """The pair's answer as far as it is read; one of a scale is never cut."""
        answer = batch.answers[pair]
        if batch.alternatives[pair]:
            return answer
        return " ".join(answer.split()[: self.plan.max_answer_words])

    def _next_token(
        self, read: Read, batch: "PairBatch", chosen: Sequence[int], answers: Sequence[str]
    ) -> Tensor:
        ids = [self.towers.texts(text).ids for text in answers]
        rows = [self.words.rows(one) for one in ids]
        own = read.of([batch.reading_of_pair[pair] for pair in chosen])
        states, follows = self.towers.answer_states(own, [batch.queries[pair] for pair in chosen], rows)
        return self.words.loss(states, follows, ids)

    def _by_alternatives(
        self, batch: "PairBatch", users_PD: Tensor, answers_AD: Tensor, row_of: dict[str, int]
    ) -> dict[str, Tensor]:
        """The outcome and outlook terms, of pairs with alternatives (all of one scale's length)."""
        asked = [pair for pair, scale in enumerate(batch.alternatives) if scale]
        if not asked:
            return {}
        device, tau = users_PD.device, self.plan.temperature
        scales, answers = [batch.alternatives[p] for p in asked], [batch.answers[p] for p in asked]
        users, terms = users_PD[asked], {}
        if self.plan.outcome_weight:
            choices_PK, class_P = _choices(scales, answers, row_of, device)
            logits_PK = torch.einsum("pd,pkd->pk", users, answers_AD[choices_PK]) / tau
            terms["outcome"] = F.cross_entropy(logits_PK, class_P)
        if self.plan.outlook_weight:
            reading_P = [batch.reading_of_pair[pair] for pair in asked]
            reading_T = torch.tensor([*reading_P, *batch.told_reading], device=device)
            choices_TK, class_T = _choices(
                [*scales, *batch.told_alternatives], [*answers, *batch.told_answers], row_of, device
            )
            first, second = (reading_T[: len(asked), None] == reading_T).nonzero(as_tuple=True)
            scores_PA = self.outlook(users) @ answers_AD.T / tau
            logits_NK = scores_PA[first.unsqueeze(1), choices_TK[second]]
            terms["outlook"] = F.cross_entropy(logits_NK, class_T[second])
        return terms


def _choices(
    scales: Sequence[tuple[str, ...]],
    answers: Sequence[str],
    row_of: Mapping[str, int],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """(T, K) rows of every scale's texts, and (T,) which of them is the answer."""
    rows = [[row_of[text] for text in scale] for scale in scales]
    classes = [scale.index(answer) for scale, answer in zip(scales, answers, strict=True)]
    return torch.tensor(rows, device=device), torch.tensor(classes, device=device)


def one_pair_a_reading(batch: "PairBatch") -> list[int]:
    """For each reading that has a pair, the first open one (without alternatives), else the first."""
    best: dict[int, int] = {}
    for pair, reading in enumerate(batch.reading_of_pair):
        known = best.get(reading)
        if known is None or (batch.alternatives[known] and not batch.alternatives[pair]):
            best[reading] = pair
    return [best[reading] for reading in sorted(best)]


def _same_text(answers: Sequence[str], num_all: int, offset: int, device: torch.device) -> Tensor:
    """(B, W) bool: own pairs with the very same answer are no negatives of each other."""
    number = {text: row for row, text in enumerate(dict.fromkeys(answers))}
    own_B = torch.tensor([number[text] for text in answers], device=device)
    same = torch.zeros(len(answers), num_all, dtype=torch.bool, device=device)
    same[:, offset : offset + len(answers)] = own_B.unsqueeze(1) == own_B.unsqueeze(0)
    return same
