"""The training loop: any objective that makes a batch into a :class:`StepLoss`."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from qanchor_plugin.errors import EngineError
from qanchor_plugin.training.trainer.checkpoints import Checkpoint, Checkpoints, read_checkpoint
from qanchor_plugin.training.trainer.early_stopping import EarlyStopping
from qanchor_plugin.training.trainer.guard import LossGuard, stop_with_batch
from qanchor_plugin.training.trainer.log import TrainLog, draw_losses, losses_of
from qanchor_plugin.training.trainer.plan import TrainPlan
from qanchor_plugin.training.trainer.report import TrainReport
from qanchor_plugin.training.trainer.state import (
    check_same_run,
    frozen_digest,
    load_trained,
    trained_state,
)
from qanchor_plugin.training.trainer.steps import Steps, StepTaken
from qanchor_plugin.training.trainer.watch import Nobody, Watcher

BEST, CHECKPOINTS = "best", "checkpoints"


class Trainer:
    """Trains an objective; it knows nothing of what a batch is.

    Args:
        objective: ``objective(batch)`` is a StepLoss; its parameters with ``requires_grad`` are trained.
        batch_of: the batch of a number; must depend on the number alone, for a resumed run asks again.
        held_out: batches of held-out users, the same each time; none switches early stopping off.
        plan: how to train.
        folder: for checkpoints, logs and the picture of the loss.
        progress: who watches.
        identity: what else a resumed run must agree in (digests of engine and data).
        describe: a batch as JSON-like values, for people who look into a failed one.
    """

    def __init__(
        self,
        objective: nn.Module,
        batch_of: Callable[[int], Any],
        held_out: Callable[[], Iterable[Any]],
        plan: TrainPlan,
        folder: Path,
        *,
        progress: Watcher | None = None,
        identity: Mapping[str, Any] | None = None,
        describe: Callable[[Any], Any] = str,
    ) -> None:
        self.objective, self.plan, self.folder = objective, plan, folder
        self._held_out, self._describe = held_out, describe
        self._watch: Watcher = progress or Nobody()
        self._identity = json.loads(json.dumps({**(identity or {}), "frozen": frozen_digest(objective)}))
        self._steps = Steps(objective, batch_of, plan)
        self._checkpoints = Checkpoints(folder / CHECKPOINTS, keep=plan.keep_checkpoints)
        self._best = Checkpoints(folder / BEST, keep=1)
        self._guard, self._stopping = LossGuard(plan), EarlyStopping(patience=plan.patience)
        self._seconds, self._num_tokens = 0.0, 0
        self._notes: list[str] = []

    def run(self, *, resume: bool = False) -> TrainReport:
        """The objective is trained and holds the weights that the plan keeps.

        Args:
            resume: go on from the newest whole checkpoint in the folder.

        Raises:
            EngineError: the loss ran away; a checkpoint does not fit or could not be written; the folder
                holds another run.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            resumed_from = self._restored(resume)
            return self._run(resumed_from)
        except OSError as error:
            raise EngineError(
                f"the training folder {self.folder} cannot be written ({error}). Free space or mend "
                "permissions, "
                "then run again with --resume."
            ) from error

    def _run(self, resumed_from: int | None) -> TrainReport:
        start = done = resumed_from or 0
        main, began_at = self._steps.is_main, time.monotonic() - self._seconds
        log = TrainLog(self.folder, after=start) if main else None
        watch = self._watch if main else Nobody()
        watch.started(self.plan.steps, start)
        for one in self._notes:
            watch.note(one)
        try:
            if resumed_from is None and self.plan.evaluate_every:
                self._look(0, log, watch)
            while done < self.plan.steps and not self._stopping.should_stop:
                taken = self._take(done)
                done += 1
                self._seconds = time.monotonic() - began_at
                self._tell(done, taken, log, watch)
                if self.plan.evaluate_every and _due(done, self.plan.evaluate_every, self.plan.steps):
                    self._look(done, log, watch)
                if _due(done, self.plan.checkpoint_every, self.plan.steps) or self._stopping.should_stop:
                    self._save(done)
        finally:
            watch.ended()
            if log is not None:
                log.close()
        return self._report(done, resumed_from)

    def _take(self, done: int) -> StepTaken:
        """The step is taken, unless its loss ends the run: then the weights stay as they were."""
        taken = self._steps.forward(done)
        why = self._guard.fault(taken.loss, taken.gradient_norm)
        if why is not None:
            stop_with_batch(
                why,
                step=done + 1,
                batches=taken.batches,
                describe=self._describe,
                folder=self.folder,
                rank=self._steps.rank,
            )
        self._steps.update(done)
        self._num_tokens += taken.num_tokens
        return taken

    def _tell(self, done: int, taken: StepTaken, log: TrainLog | None, watch: Watcher) -> None:
        figures = taken.figures(self.plan.learning_rate_at(done - 1))
        watch.step(done, figures)
        if log is not None and _due(done, self.plan.log_every, self.plan.steps):
            log.step(done, figures)

    def _look(self, done: int, log: TrainLog | None, watch: Watcher) -> None:
        """The held-out users are looked at after ``done`` steps; the best weights are on disk."""
        figures = self._steps.held_out(self._held_out())
        if not figures:
            return
        is_best = self._stopping.look(done, figures["loss"])
        if log is not None:
            log.held_out(done, figures)
            if is_best and self.plan.keep == "best":
                self._best.save(done, trained_state(self.objective), None, {})
        watch.note(f"step {done}: held-out loss {figures['loss']:.4f}{' (best so far)' if is_best else ''}")

    def _save(self, done: int) -> None:
        """A checkpoint of all that a resumed run needs; rates and batches need only the step."""
        if self._steps.is_main:
            facts = {
                "plan": self.plan.to_dict(),
                "identity": self._identity,
                "stopping": self._stopping.to_dict(),
                "recent": list(self._guard.recent),
                "above": self._guard.above,
                "seconds": self._seconds,
                "num_tokens": self._num_tokens,
            }
            self._checkpoints.save(done, trained_state(self.objective), self._steps.optimizer_state(), facts)
        self._steps.wait()

    def _restored(self, resume: bool) -> int | None:
        """The step after which the run goes on, with everything as it was then; None for a new run."""
        if not resume:
            if self._checkpoints.steps():
                raise EngineError(
                    f"{self.folder} holds a run of {self._checkpoints.steps()[0]} steps. Give --resume to "
                    "go on, or "
                    "another folder."
                )
            return None
        if self._steps.is_main:
            self._checkpoints.clear_scratch()
            self._best.clear_scratch()
        found, faults = self._checkpoints.newest()
        self._notes += faults
        if found is None:
            self._notes.append(f"no checkpoint in {self.folder} yet: training starts anew")
            return None
        self._load(found)
        return found.step

    def _load(self, found: Checkpoint) -> None:
        where = str(self._checkpoints.path(found.step))
        load_trained(self.objective, found.weights, where)
        check_same_run(found, self.plan.to_dict(), self._identity, where)
        if found.optimizer is None:
            raise EngineError(f"{where} holds no optimiser state. Train in another folder.")
        self._steps.load_optimizer(found.optimizer)
        facts = found.facts
        self._guard = LossGuard(self.plan, facts["recent"], facts["above"])
        self._stopping = EarlyStopping(**facts["stopping"])
        self._seconds, self._num_tokens = facts["seconds"], facts["num_tokens"]
        self._notes.append(f"going on after step {found.step} ({where})")

    def _report(self, done: int, resumed_from: int | None) -> TrainReport:
        kept, stopped = done, done < self.plan.steps
        self._steps.wait()
        if self.plan.keep == "best" and self._stopping.best is not None:
            kept = self._stopping.best_step
            path = self._best.path(kept)
            load_trained(self.objective, read_checkpoint(path).weights, str(path))
        self._steps.ended()
        if self._steps.is_main:
            draw_losses(self.folder)
        losses, held_out = losses_of(self.folder)
        return TrainReport(
            steps=done,
            stopped_early=stopped,
            kept_step=kept,
            losses=tuple(losses),
            held_out=tuple(held_out),
            seconds=self._seconds,
            num_tokens=self._num_tokens,
            resumed_from=resumed_from,
            notes=tuple(self._notes),
        )


def _due(done: int, every: int, steps: int) -> bool:
    """Whether it is time after ``done`` of ``steps``: every so many, and at the end."""
    return done == steps or (every > 0 and done % every == 0)
