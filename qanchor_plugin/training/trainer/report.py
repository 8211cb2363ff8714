"""What a training run came to."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """How a run ended.

    Attributes:
        steps: steps taken, those before a resume included.
        stopped_early: whether the held-out users ended it.
        kept_step: the step whose weights the objective holds now.
        losses: (step, loss) of every logged step; steps count from 1.
        held_out: (step, loss on the held-out users); step 0 is before training.
        seconds: of training, those before a resume included.
        num_tokens: read by all devices together.
        resumed_from: the step that this process began after; None for a new run.
        notes: what a person should know (a checkpoint that was passed over, for one).
    """

    steps: int
    stopped_early: bool
    kept_step: int
    losses: tuple[tuple[int, float], ...]
    held_out: tuple[tuple[int, float], ...]
    seconds: float
    num_tokens: int
    resumed_from: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values."""
        return asdict(self)
