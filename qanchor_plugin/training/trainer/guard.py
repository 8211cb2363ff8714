"""Ends a run whose loss is no number or runs away."""

import json
import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qanchor_plugin.errors import EngineError
from qanchor_plugin.training.trainer.plan import TrainPlan

NUM_RECENT = 50


class LossGuard:
    """Watches the losses of a run.

    Args:
        plan: says what running away is.
        recent: losses before a resume.
        above: steps in a row that stood above the bound before it.
    """

    def __init__(self, plan: TrainPlan, recent: Sequence[float] = (), above: int = 0) -> None:
        self._plan, self.recent, self.above = plan, deque(recent, maxlen=NUM_RECENT), above

    def fault(self, loss: float, gradient_norm: float) -> str | None:
        """Why the run must end, or None; the loss counts towards the running median."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(gradient_norm):
            return f"the gradient's norm is {gradient_norm} (the loss is {loss:.4g})"
        median = statistics.median(self.recent) if self.recent else loss
        bound = median + (self._plan.diverge_factor - 1) * abs(median)
        self.above = self.above + 1 if loss > bound else 0
        if not self.above:  # what runs away must not raise its own bound
            self.recent.append(loss)
        if self.above >= self._plan.diverge_steps:
            return (
                f"the loss has been above {bound:.4g} ({self._plan.diverge_factor:g} times its running "
                "median "
                f"{median:.4g}) for {self.above} steps; it is {loss:.4g}"
            )
        return None


def stop_with_batch(
    why: str, *, step: int, batches: Sequence[Any], describe: Callable[[Any], Any], folder: Path, rank: int
) -> None:
    """``folder/failed_batch.json`` holds the step's batches (``failed_batch.rank1.json`` on device 1).

    Raises:
        EngineError: always; says why the run ends and where the batch is.
    """
    name = "failed_batch.json" if rank == 0 else f"failed_batch.rank{rank}.json"
    told = {"step": step, "why": why, "batches": [describe(one) for one in batches]}
    try:
        (folder / name).write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
        where = f"its batch is in {folder / name}"
    except OSError as error:
        where = f"its batch could not be saved ({error})"
    raise EngineError(
        f"training stopped at step {step}: {why}; {where}. Lower the learning rate, clip harder, or train in "
        "float32; --resume goes on from the last checkpoint."
    )
