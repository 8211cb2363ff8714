"""From the state at ``<USER_EMB>`` to the embedding."""

import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """Linear, ReLU, Linear (Query-as-Anchor 3.2.2: hidden, 512, 128)."""

    def __init__(self, hidden: int, inner: int, embedding_dim: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, inner)
        self.outer = nn.Linear(inner, embedding_dim)

    def forward(self, state: Tensor) -> Tensor:
        """(..., W) to (..., 128), L2-normalised, float32."""
        projected = self.outer(torch.relu(self.inner(state))).float()
        return nn.functional.normalize(projected, dim=-1)
