"""Steps of the optimiser through ``accelerate``: devices, precision and accumulation, and nothing else."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qanchor_plugin.extras import require
from qanchor_plugin.training.step import StepLoss
from qanchor_plugin.training.trainer.plan import TrainPlan

_MIXED = {"float32": "no", "bf16": "bf16"}
_HELD_OUT_SEED = 2**31


def accelerator_for(plan: TrainPlan, device: torch.device) -> Any:
    """An Accelerator on the kind of ``device``; made before an engine is loaded, it also chooses this
    process's own GPU under ``accelerate launch``."""
    accelerate = require("accelerate", purpose="Training")
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    AcceleratorState._reset_state()  # a run before this one in the process may have had another precision
    return accelerate.Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=_MIXED[plan.precision],
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


@dataclass(frozen=True, kw_only=True)
class StepTaken:
    """A step's figures over all devices, and this device's batches."""

    loss: float
    gradient_norm: float
    parts: dict[str, float]
    num_tokens: int
    seconds: float
    batches: list[Any]

    def figures(self, learning_rate: float) -> dict[str, float]:
        """What is logged."""
        told = {"loss": self.loss, **self.parts, "learning_rate": learning_rate}
        told["gradient_norm"] = self.gradient_norm
        if self.num_tokens:
            told["tokens_per_second"] = self.num_tokens / self.seconds
        return told


class Steps:
    """An objective, its optimiser, and the devices that they run on.

    Args:
        objective: on its device; in a run of several processes each has its own.
        batch_of: the batch of a number; a step takes ``accumulate`` numbers on every device.
        plan: how to train.
    """

    def __init__(self, objective: nn.Module, batch_of: Callable[[int], Any], plan: TrainPlan) -> None:
        self._plan, self._batch_of = plan, batch_of
        trained = [one for one in objective.parameters() if one.requires_grad]
        self._accelerator = accelerator_for(plan, trained[0].device)
        groups = [
            {"params": [one for one in trained if one.ndim > 1], "weight_decay": plan.weight_decay},
            {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([one for one in groups if one["params"]], lr=plan.learning_rate)
        self._model, self._optimizer = self._accelerator.prepare(objective, optimizer)
        self._trained = trained

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return bool(self._accelerator.is_main_process)

    @property
    def rank(self) -> int:
        """This process's number."""
        return int(self._accelerator.process_index)

    def forward(self, step: int) -> StepTaken:
        """The gradients of ``step`` stand in the parameters, clipped; nothing has moved yet."""
        began_at, plan = time.monotonic(), self._plan
        self._model.train()
        self._optimizer.zero_grad(set_to_none=True)
        losses, parts, batches = [], [], []
        for turn in range(plan.accumulate):
            number = (step * plan.accumulate + turn) * self._accelerator.num_processes + self.rank
            batch = self._batch_of(number)
            torch.manual_seed(plan.seed * 1_000_003 + number)
            if turn < plan.accumulate - 1:
                with self._accelerator.no_sync(self._model):
                    told = self._backward(batch)
            else:
                told = self._backward(batch)
            losses.append(told.loss.detach().float())
            parts.append(told.parts)
            batches.append(batch)
        norm = self._accelerator.clip_grad_norm_(self._trained, plan.clip or float("inf"))
        loss, shared = self._shared(torch.stack(losses).mean(), parts)
        return StepTaken(
            loss=loss,
            gradient_norm=float(norm),
            parts=shared,
            num_tokens=round(
                shared.get("num_tokens", 0.0) * plan.accumulate * self._accelerator.num_processes
            ),
            seconds=time.monotonic() - began_at,
            batches=batches,
        )

    def update(self, step: int) -> None:
        """The weights have moved by the gradients of ``step``."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._plan.learning_rate_at(step)
        self._optimizer.step()

    def held_out(self, batches: Iterable[Any]) -> dict[str, float]:
        """Mean loss and parts over the batches, shared out between devices; {} without any."""
        self._model.eval()
        losses, parts = [], []
        with torch.no_grad():
            for number, batch in enumerate(self._own(batches)):
                torch.manual_seed(_HELD_OUT_SEED + number)
                told = self._model(batch)
                losses.append(told.loss.float())
                parts.append(told.parts)
        if not losses:
            return {}
        loss, shared = self._shared(torch.stack(losses).mean(), parts)
        return {"loss": loss, **shared}

    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's state dict."""
        return dict(self._optimizer.state_dict())

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """The optimiser is as it was."""
        self._optimizer.load_state_dict(state)

    def wait(self) -> None:
        """All processes have come this far."""
        self._accelerator.wait_for_everyone()

    def ended(self) -> None:
        """The objective is an ordinary module again, in evaluation mode."""
        self._accelerator.unwrap_model(self._model, keep_fp32_wrapper=False).eval()
        self._accelerator.free_memory()

    def _backward(self, batch: Any) -> StepLoss:
        told: StepLoss = self._model(batch)
        self._accelerator.backward(told.loss / self._plan.accumulate)
        return told

    def _own(self, batches: Iterable[Any]) -> Iterator[Any]:
        """This device's of each full round; the first one, where there is no full round."""
        group: list[Any] = []
        rounds = 0
        for batch in batches:
            group.append(batch)
            if len(group) == self._accelerator.num_processes:
                yield group[self.rank]
                group, rounds = [], rounds + 1
        if group and not rounds:
            yield group[0]

    def _shared(self, loss: torch.Tensor, parts: list[dict[str, float]]) -> tuple[float, dict[str, float]]:
        """Means over batches and devices; of a part that some lack, over those that have it."""
        names = sorted({name for one in parts for name in one})
        means = [
            sum(one[name] for one in parts if name in one) / sum(name in one for one in parts)
            for name in names
        ]
        if self._accelerator.num_processes > 1:
            loss = self._accelerator.reduce(loss, reduction="mean")
            from accelerate.utils import gather_object

            every = gather_object([dict(zip(names, means, strict=True))])
            names = sorted({name for one in every for name in one})
            means = [
                sum(one[name] for one in every if name in one) / sum(name in one for one in every)
                for name in names
            ]
        return float(loss), dict(zip(names, means, strict=True))
