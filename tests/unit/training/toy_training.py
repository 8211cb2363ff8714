"""A small real model and its batches; run as a program, it trains in a folder until it is done or killed."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from qanchor_plugin.training.step import StepLoss
from qanchor_plugin.training.trainer import Trainer, TrainPlan, TrainReport


class ToyObjective(nn.Module):
    """Regression with dropout (so that random numbers matter), a frozen layer and a buffer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Dropout(0.2), nn.Linear(width, 1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, batch: tuple[Tensor, Tensor]) -> StepLoss:
        """Mean squared error."""
        x, y = batch
        if self.training:
            self.seen += len(x)
        loss = nn.functional.mse_loss(self.body(self.frozen(x)).squeeze(1), y)
        return StepLoss(loss=loss, parts={"error": float(loss.detach()), "num_tokens": float(x.numel())})


def batch_of(number: int) -> tuple[Tensor, Tensor]:
    """16 rows that depend on the number alone."""
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
    return x, x.sum(1).tanh()


def held_out() -> list[tuple[Tensor, Tensor]]:
    """Two batches that are never trained on."""
    return [batch_of(10**6), batch_of(10**6 + 1)]


def train(folder: Path, plan: TrainPlan, *, resume: bool = False, **more: object) -> TrainReport:
    """A run of the toy."""
    torch.set_num_threads(1)
    return Trainer(ToyObjective(), batch_of, held_out, plan, folder, **more).run(resume=resume)


KILLED_PLAN = TrainPlan(
    steps=60, learning_rate=0.01, evaluate_every=10, checkpoint_every=7, accumulate=2, keep_checkpoints=2
)

TWO_PROCESS_PLAN = TrainPlan(steps=6, learning_rate=0.01, evaluate_every=3, checkpoint_every=2)

if __name__ == "__main__":
    import time

    def slow(number: int) -> tuple[Tensor, Tensor]:
        """As ``batch_of``, slow enough to be killed in the middle."""
        time.sleep(0.02)
        return batch_of(number)

    torch.set_num_threads(1)
    plan = TWO_PROCESS_PLAN if "--two" in sys.argv else KILLED_PLAN
    Trainer(ToyObjective(), slow, held_out, plan, Path(sys.argv[1])).run()
