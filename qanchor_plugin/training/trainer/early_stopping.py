"""The best look at the held-out users, and when to give up waiting for a better one."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(kw_only=True)
class EarlyStopping:
    """What the looks have shown.

    Attributes:
        patience: looks without a new best until training should stop; 0 never.
        best, best_step: the lowest loss so far and when; None before the first look.
        waited: looks since then.
    """

    patience: int
    best: float | None = None
    best_step: int = 0
    waited: int = 0

    def look(self, step: int, loss: float) -> bool:
        """Whether ``loss`` is a new best (NaN never is)."""
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.best_step, self.waited = loss, step, 0
            return True
        self.waited += 1
        return False

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.waited

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values; ``EarlyStopping(**record)`` reads it back."""
        return asdict(self)
