"""Cluster-based soft-prompt tuning (Query-as-Anchor §3.2.3): a few tokens and K prototypes, all else frozen.

Shape letters: N rows, B rows of a batch, P soft tokens, C token width, K classes.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qanchor_plugin.engine import QueryAnchorEngine, SoftPrompt
from qanchor_plugin.engine.prefix import Prefix
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.losses import prototype_loss
from qanchor_plugin.training.tuning.held_out import Int64, clearly_lower, split_rows, user_numbers
from qanchor_plugin.training.tuning.plan import TunePlan
from qanchor_plugin.training.tuning.read_users import ReadUsers

MIN_OF_A_CLASS = 5
"""Users that every class needs: one a fold of the usual five, and one to hold out."""
SCORED_TOGETHER = 64
FIT_ITERATIONS = 100

Progress = Callable[[int, float], None]
"""(step, loss of its batch)."""


@dataclass(frozen=True, kw_only=True)
class TunedPrompt:
    """What a tuning found.

    Attributes:
        soft_prompt: the tokens, for the engine they were tuned on.
        prototypes: (K, 128) float32.
        losses: of each step's batch.
        held_out_losses: (step, loss of the averaged tokens on the held-out rows), the start (step 0) first.
        best_step: the one whose average was kept: the start (0), unless the held-out rows' loss falls from it
            by more than the standard error of that fall (paired by user).
        num_rows, num_held_out: rows that steps saw, and rows, of other users, that they did not.
    """

    soft_prompt: SoftPrompt
    prototypes: npt.NDArray[np.float32]
    losses: tuple[float, ...]
    held_out_losses: tuple[tuple[int, float], ...]
    best_step: int
    num_rows: int
    num_held_out: int


def tune(
    engine: QueryAnchorEngine,
    query: str,
    prefixes: Sequence[Prefix],
    cutoffs: Sequence[int],
    labels: Sequence[int] | npt.NDArray[np.int64],
    plan: TunePlan | None = None,
    *,
    progress: Progress | None = None,
) -> TunedPrompt:
    """The prompt and prototypes of least prototype loss; engine and prefixes are as they were.

    Args:
        engine: its modules stay frozen.
        query: the scenario's.
        prefixes: N, from the engine's ``build_prefixes``; a user may stand at several cutoffs.
        cutoffs: N, microseconds since 1970 UTC.
        labels: N, classes 0 to K - 1.
        plan: None takes the defaults.
        progress: told of every step.

    Raises:
        InputDataError: lengths differ, one class only, or a class with fewer than 5 users.
        EngineError: the query does not fit, or the engine is in training.
    """
    everyone = np.arange(len(prefixes))
    (found,) = tune_each(engine, query, prefixes, cutoffs, labels, [everyone], plan, progress=progress)
    return found


def tune_each(
    engine: QueryAnchorEngine,
    query: str,
    prefixes: Sequence[Prefix],
    cutoffs: Sequence[int],
    labels: Sequence[int] | npt.NDArray[np.int64],
    subsets: Sequence[npt.NDArray[np.intp]],
    plan: TunePlan | None = None,
    *,
    progress: Progress | None = None,
) -> Iterator[TunedPrompt]:
    """A tuning for each subset of the rows (training folds); users are read once for all of them.

    Args:
        engine, query, prefixes, cutoffs, labels, plan, progress: as in :func:`tune`.
        subsets: places of the rows that a tuning may see; it sees no others.

    Raises:
        InputDataError, EngineError: as in :func:`tune`.
    """
    plan = plan or TunePlan()
    _refuse_lengths(prefixes, cutoffs, labels)
    classes, names = np.asarray(labels, np.int64), user_numbers([one.user for one in prefixes])
    for rows in subsets:
        _refuse_few(classes[rows], names[rows])
    users = ReadUsers(
        engine.modules,
        prefixes,
        cutoffs,
        engine.prepare_query(query).rows,
        num_tokens=plan.num_tokens,
        max_bytes=plan.max_cache_bytes,
    )
    for rows in subsets:
        parts = split_rows(classes[rows], names[rows], plan.held_out, seed=plan.seed)
        seen, held = (rows[places] for places in parts)
        search = _Search(users, torch.from_numpy(classes).to(engine.device), plan)
        search.begin(seen)
        losses, held_losses = search.run(seen, held, names[held], progress)
        yield TunedPrompt(
            soft_prompt=SoftPrompt(tokens=search.best.tokens(), engine_digest=engine.digest),
            prototypes=search.best.prototypes_KD.cpu().numpy(),
            losses=tuple(losses),
            held_out_losses=tuple(held_losses),
            best_step=search.best.step,
            num_rows=len(seen),
            num_held_out=len(held),
        )


def _refuse_lengths(prefixes: Sequence[Prefix], cutoffs: Sequence[int], labels: Sequence[int] | Any) -> None:
    if not len(prefixes) == len(cutoffs) == len(labels):
        raise InputDataError(
            f"{len(prefixes)} prefixes, {len(cutoffs)} cutoffs and {len(labels)} labels; give one of each a "
            "row."
        )


def _refuse_few(classes: Int64, users: Int64) -> None:
    distinct = np.unique(np.stack([classes, users]), axis=1)[0]
    counts = np.bincount(distinct) if len(distinct) and distinct.min() >= 0 else np.zeros(0, np.int64)
    if len(counts) < 2 or counts.min() < MIN_OF_A_CLASS:
        told = {int(one): int((distinct == one).sum()) for one in np.unique(distinct)}
        raise InputDataError(
            f"users of each class are {told}; classes are 0, 1, ..., two at least, with {MIN_OF_A_CLASS} "
            "users each. Label more users, of every class."
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """An average of the search, and its loss on each of the M held-out rows."""

    step: int
    held_losses_M: Tensor
    prompt_PC: Tensor
    prototypes_KD: Tensor

    @property
    def loss(self) -> float:
        return float(self.held_losses_M.mean())

    def tokens(self) -> npt.NDArray[np.float32]:
        return self.prompt_PC.float().cpu().numpy()


def fitted_prototypes(embedded_ND: Tensor, classes_N: Tensor, means_KD: Tensor, plan: TunePlan) -> Tensor:
    """(K, D) of least prototype loss plus ``prototype_decay`` times their squared spread, from the means."""
    prototypes = means_KD.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([prototypes], max_iter=FIT_ITERATIONS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimiser.zero_grad()
        loss = prototype_loss(embedded_ND, prototypes, classes_N, temperature=plan.temperature)
        loss = loss + plan.prototype_decay * (prototypes - prototypes.mean(0)).square().sum()
        loss.backward()
        return loss

    optimiser.step(objective)
    return prototypes.detach()


class _Search:
    """The optimisation: tokens and prototypes, their averages, and the best of these so far."""

    def __init__(self, users: ReadUsers, classes_N: Tensor, plan: TunePlan) -> None:
        self.users, self.classes_N, self.plan = users, classes_N, plan
        self.random = np.random.default_rng(plan.seed)
        like = users.user_emb_C
        noise = torch.from_numpy(self.random.normal(size=(plan.num_tokens - 1, len(like)))).to(like)
        self.start_PC = torch.cat([like[None] + plan.noise * noise, torch.zeros_like(like[None])])
        self.best: _Found

    def begin(self, seen: npt.NDArray[np.intp]) -> None:
        """The tokens are copies of ``<USER_EMB>``, a little apart, and it is not changed; the prototypes are
        fitted to what the users' embeddings say so far: the tokens then learn what these leave unsaid."""
        embedded_ND = self._embedded(seen, self.start_PC)
        classes = self.classes_N[torch.from_numpy(seen).to(embedded_ND.device)]
        num_classes = int(self.classes_N.max()) + 1
        means = torch.stack([embedded_ND[classes == one].mean(0) for one in range(num_classes)])
        prototypes = fitted_prototypes(embedded_ND, classes, means, self.plan)
        self.parameters = [self.start_PC.clone().requires_grad_(), prototypes.requires_grad_()]
        self.averages = [one.detach().clone() for one in self.parameters]
        self.optimiser = torch.optim.AdamW(self.parameters, weight_decay=0.0, betas=(0.9, 0.99))

    def run(
        self,
        seen: npt.NDArray[np.intp],
        held: npt.NDArray[np.intp],
        held_users: Int64,
        progress: Progress | None,
    ) -> tuple[list[float], list[tuple[int, float]]]:
        """Losses of the steps, and of the held-out rows; ``best`` is what is to be kept."""
        losses: list[float] = []
        start = self.best = self._average(0, held)
        held_losses = [(0, start.loss)] if len(held) else []
        waited = 0
        for step, rows in zip(range(1, self.plan.steps + 1), self._batches(seen), strict=False):
            losses.append(self._step(step, rows))
            if progress is not None:
                progress(step, losses[-1])
            if not len(held) or (step % self.plan.evaluate_every and step < self.plan.steps):
                continue
            found = self._average(step, held)
            held_losses.append((step, found.loss))
            better = found.loss < self.best.loss
            waited = 0 if better else waited + 1
            if better:
                self.best = found
            if waited == self.plan.patience:
                break
        if not len(held):
            self.best = self._average(len(losses), held)
        elif not clearly_lower(self.best.held_losses_M, start.held_losses_M, held_users):
            self.best = start
        return losses, held_losses

    def _step(self, step: int, rows: npt.NDArray[np.intp]) -> float:
        plan, (prompt, prototypes) = self.plan, self.parameters
        for group in self.optimiser.param_groups:
            group["lr"] = plan.learning_rate * min(1.0, step / max(1, plan.warmup_steps))
        user_BD = self.users.embed(rows.tolist(), prompt)
        classes = self.classes_N[torch.from_numpy(rows).to(user_BD.device)]
        loss = prototype_loss(user_BD, prototypes, classes, temperature=plan.temperature)
        if not torch.isfinite(loss):
            raise InputDataError(
                f"the loss of step {step} is {loss.item()}; lower the learning rate ({plan.learning_rate})."
            )
        total = loss + plan.decay_to_start * (prompt - self.start_PC).square().sum()
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        keep = min(plan.averaging, step / (step + 10))
        for average, one in zip(self.averages, self.parameters, strict=True):
            average.lerp_(one.detach(), 1 - keep)
        return float(loss.detach())

    def _batches(self, seen: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
        """Rows in a new order each time round; a batch is never larger than what there is."""
        size = min(self.plan.batch_size, len(seen))
        while True:
            order = self.random.permutation(seen)
            for start in range(0, len(order) - size + 1, size):
                yield order[start : start + size]

    @torch.no_grad()
    def _embedded(self, rows: npt.NDArray[np.intp], prompt_PC: Tensor) -> Tensor:
        parts = [rows[at : at + SCORED_TOGETHER].tolist() for at in range(0, len(rows), SCORED_TOGETHER)]
        return torch.cat([self.users.embed(part, prompt_PC) for part in parts])

    def _average(self, step: int, held: npt.NDArray[np.intp]) -> _Found:
        prompt, prototypes = (one.detach().clone() for one in self.averages)
        losses_M = prompt.new_zeros(0)
        if len(held):
            user_MD = self._embedded(held, prompt)
            classes = self.classes_N[torch.from_numpy(held).to(user_MD.device)]
            losses_M = prototype_loss(
                user_MD, prototypes, classes, temperature=self.plan.temperature, reduction="none"
            )
        return _Found(step=step, held_losses_M=losses_M, prompt_PC=prompt, prototypes_KD=prototypes)
