"""What one optimisation step returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StepLoss:
    """A loss and what it is made of.

    Attributes:
        loss: scalar with gradient.
        parts: detached figures by name: each term of the loss, ``accuracy`` (0 to 1), ``num_tokens``.
    """

    loss: Tensor
    parts: dict[str, float]
