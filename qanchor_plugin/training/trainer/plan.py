"""How a model is trained: steps, rates, precision, and what is kept."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qanchor_plugin.errors import EngineError

SCHEDULES = ("one_cycle", "cosine")
PRECISIONS = ("float32", "bf16")
KEEPS = ("best", "last")
FREE_TO_CHANGE = ("checkpoint_every", "keep_checkpoints", "log_every")
"""What a resumed run may do differently: nothing of it moves a weight."""

_ONE_CYCLE_START, _ONE_CYCLE_END = 1 / 25, 1e-4


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """How to train.

    Attributes:
        steps: of the optimiser, at most.
        learning_rate: at its highest.
        weight_decay: AdamW's, on matrices only.
        warmup_share: of the steps until the highest rate.
        schedule: ``one_cycle`` (Smith 2018: up from a 25th by a cosine, down to a 10,000th) or ``cosine`` (up
            linearly from 0, down to 0).
        accumulate: batches a step.
        clip: largest norm of the gradient; 0 leaves it.
        precision: ``float32``, or ``bf16`` (weights float32, forwards in bfloat16).
        gradient_checkpointing: of a transformers backbone: less memory, a third more time.
        seed: of everything random in a step.
        evaluate_every: steps between looks at the held-out users; 0 never looks.
        patience: looks without a new best until training stops; 0 never stops it.
        keep: the weights of the ``best`` look, or the ``last``.
        diverge_factor, diverge_steps: a loss above this many times the running median for so many steps in
            a row ends the run.
        checkpoint_every: steps between checkpoints; 0 makes only the last.
        keep_checkpoints: the newest so many stay.
        log_every: steps between lines of ``metrics.jsonl``.
    """

    steps: int = 160
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    warmup_share: float = 0.15
    schedule: str = "one_cycle"
    accumulate: int = 1
    clip: float = 1.0
    precision: str = "float32"
    gradient_checkpointing: bool = False
    seed: int = 0
    evaluate_every: int = 50
    patience: int = 0
    keep: str = "best"
    diverge_factor: float = 5.0
    diverge_steps: int = 20
    checkpoint_every: int = 50
    keep_checkpoints: int = 2
    log_every: int = 1

    def __post_init__(self) -> None:
        choices = {"schedule": SCHEDULES, "precision": PRECISIONS, "keep": KEEPS}
        faults = [
            f"{name} is {getattr(self, name)!r}; accepted are {list(accepted)}."
            for name, accepted in choices.items()
            if getattr(self, name) not in accepted
        ]
        for name in ("steps", "accumulate", "keep_checkpoints", "log_every", "diverge_steps"):
            if getattr(self, name) < 1:
                faults.append(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        for name in ("evaluate_every", "patience", "checkpoint_every", "clip", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                faults.append(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if not self.learning_rate > 0 or not math.isfinite(self.learning_rate):
            faults.append(f"learning_rate is {self.learning_rate}; it must be above 0.")
        if not 0 <= self.warmup_share < 1:
            faults.append(f"warmup_share is {self.warmup_share}; it must be at least 0 and below 1.")
        if not self.diverge_factor > 1:
            faults.append(f"diverge_factor is {self.diverge_factor}; it must be above 1.")
        if faults:
            raise EngineError("training plan: " + " ".join(faults))

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values."""
        return asdict(self)

    def learning_rate_at(self, step: int) -> float:
        """The rate of ``step`` (0 is the first): a resumed run needs nothing else to have the same."""
        warm, last = round(self.warmup_share * self.steps), self.steps - 1
        one_cycle = self.schedule == "one_cycle"
        if step < warm:
            done = step / warm
            if not one_cycle:
                return self.learning_rate * (step + 1) / warm
            return self.learning_rate * _between(_ONE_CYCLE_START, 1.0, done)
        done = (step - warm) / max(1, last - warm)
        return self.learning_rate * _between(1.0, _ONE_CYCLE_END if one_cycle else 0.0, done)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two plans and moves weights, as ``key: before, now``."""
    keys = [key for key in sorted({*before, *now}) if key not in FREE_TO_CHANGE]
    return [
        f"{key}: {before.get(key)!r}, now {now.get(key)!r}" for key in keys if before.get(key) != now.get(key)
    ]


def _between(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
