"""The loop on a small real model: what it writes, when it stops, what it keeps."""

import io
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from qanchor_plugin.errors import EngineError
from qanchor_plugin.training.step import StepLoss
from qanchor_plugin.training.trainer import Trainer, TrainPlan
from qanchor_plugin.training.trainer.checkpoints import read_checkpoint
from qanchor_plugin.training.trainer.guard import LossGuard
from qanchor_plugin.training.trainer.watch import PlainLines
from tests.unit.training.toy_training import ToyObjective, batch_of, held_out, train

PLAN = TrainPlan(steps=12, learning_rate=0.02, evaluate_every=4, checkpoint_every=5)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("run")
    return folder, train(folder, PLAN)


def test_a_run_learns_and_reports_every_step(ran):
    _, report = ran
    assert [step for step, _ in report.losses] == list(range(1, 13))
    assert [step for step, _ in report.held_out] == [0, 4, 8, 12]
    assert report.held_out[-1][1] < report.held_out[0][1]
    assert (report.steps, report.stopped_early, report.resumed_from) == (12, False, None)
    assert report.num_tokens == 12 * 16 * 4


def test_figures_stand_in_metrics_tensorboard_and_a_picture(ran):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    folder, report = ran
    lines = [json.loads(one) for one in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [one for one in lines if "loss" in one]
    assert steps[0].keys() >= {"loss", "error", "learning_rate", "gradient_norm", "tokens_per_second"}
    assert steps[0]["learning_rate"] == pytest.approx(PLAN.learning_rate_at(0))
    (events,) = (folder / "tensorboard").iterdir()
    loaded = EventFileLoader(str(events)).Load()
    found = {(value.tag, event.step) for event in loaded for value in event.summary.value}
    assert {("train/loss", 12), ("train/tokens_per_second", 1), ("held_out/loss", 0)} <= found
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len(report.losses) == len(steps)


def test_only_the_newest_checkpoints_stay_and_frozen_weights_are_in_none(ran):
    folder, _ = ran
    names = sorted(one.name for one in (folder / "checkpoints").iterdir())
    assert names == ["step-00000010", "step-00000012"]
    found = read_checkpoint(folder / "checkpoints" / names[1])
    assert set(found.weights) == {"body.0.weight", "body.0.bias", "body.3.weight", "body.3.bias", "seen"}
    assert found.weights["seen"].item() == 12 * 16


def test_a_step_of_two_batches_is_a_step_of_both_together(tmp_path):
    class Plain(ToyObjective):
        def __init__(self) -> None:
            super().__init__()
            self.body[2].p = 0.0

    def both(number: int):
        parts = [batch_of(2 * number), batch_of(2 * number + 1)]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    made = []
    for name, batches, accumulate in (("two", batch_of, 2), ("one", both, 1)):
        plan = TrainPlan(steps=3, evaluate_every=0, accumulate=accumulate, checkpoint_every=0)
        objective = Plain()
        report = Trainer(objective, batches, list, plan, tmp_path / name).run()
        made.append((report.losses, objective.body[0].weight))
    assert [loss for _, loss in made[0][0]] == pytest.approx([loss for _, loss in made[1][0]], abs=1e-6)
    torch.testing.assert_close(made[0][1], made[1][1], atol=1e-6, rtol=0)


def test_bf16_is_near_float32_and_weights_stay_float32(tmp_path):
    losses = {}
    for precision in ("float32", "bf16"):
        objective = ToyObjective()
        plan = TrainPlan(steps=3, evaluate_every=0, precision=precision)
        losses[precision] = Trainer(objective, batch_of, list, plan, tmp_path / precision).run().losses
        assert objective.body[0].weight.dtype == torch.float32
    pairs = list(zip(losses["float32"], losses["bf16"], strict=True))
    assert all(a == pytest.approx(b, rel=0.02) for (_, a), (_, b) in pairs)
    assert losses["float32"] != losses["bf16"]


def worse_and_worse():
    """Held-out users who want the opposite of what is trained."""
    return [(x, -3 * y) for x, y in held_out()]


def test_patience_stops_training_and_the_best_weights_are_kept(tmp_path):
    plan = TrainPlan(steps=40, learning_rate=0.05, evaluate_every=2, patience=3, warmup_share=0)
    objective = ToyObjective()
    start = objective.body[0].weight.detach().clone()
    report = Trainer(objective, batch_of, worse_and_worse, plan, tmp_path).run()
    assert report.stopped_early
    assert (report.steps, report.kept_step) == (6, 0)
    assert torch.equal(objective.body[0].weight, start)
    assert not objective.training
    last = Trainer(
        ToyObjective(),
        batch_of,
        worse_and_worse,
        TrainPlan(**{**vars(plan), "keep": "last"}),
        tmp_path / "last",
    ).run()
    assert (last.steps, last.kept_step) == (6, 6)


class Explosive(nn.Module):
    """A loss that is no number, or huge, from a batch on."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight, self.value = nn.Parameter(torch.ones(1)), value

    def forward(self, batch: int) -> StepLoss:
        scale = self.value if batch >= 3 else 1.0
        return StepLoss(loss=(self.weight * scale).sum(), parts={})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_with_its_batch_saved(tmp_path, value):
    objective = Explosive(value)
    plan = TrainPlan(steps=9, evaluate_every=0, checkpoint_every=1)
    trainer = Trainer(objective, int, list, plan, tmp_path, describe=lambda batch: {"number": batch})
    with pytest.raises(
        EngineError, match=r"stopped at step 4: the loss is (nan|inf); its batch is in .*failed_batch"
    ):
        trainer.run()
    told = json.loads((tmp_path / "failed_batch.json").read_text())
    assert (told["step"], told["batches"]) == (4, [{"number": 3}])
    assert torch.isfinite(objective.weight).all()  # the step was not taken
    assert (tmp_path / "checkpoints" / "step-00000003").is_dir()


def test_a_loss_that_stays_far_above_its_median_ends_the_run(tmp_path):
    plan = TrainPlan(steps=30, evaluate_every=0, diverge_factor=4, diverge_steps=3, learning_rate=1e-6)
    with pytest.raises(
        EngineError, match=r"step 6: the loss has been above 4 \(4 times .* median 1\) for 3 steps"
    ):
        Trainer(Explosive(50.0), int, list, plan, tmp_path).run()


def test_the_guard_forgets_a_single_outlier_and_sees_a_gradient_that_is_no_number():
    guard = LossGuard(TrainPlan(diverge_factor=2, diverge_steps=2))
    assert [guard.fault(loss, 1.0) for loss in (1.0, 1.0, 9.0, 1.0, 9.0, 1.0)] == [None] * 6
    assert guard.fault(9.0, 1.0) is None
    assert "above 2 (2 times its running median 1) for 2 steps" in str(guard.fault(9.0, 1.0))
    assert "gradient's norm is inf" in str(guard.fault(1.0, float("inf")))


def test_without_a_terminal_a_line_says_how_far_it_is(tmp_path):
    stream = io.StringIO()
    train(tmp_path, TrainPlan(steps=3, evaluate_every=2), progress=PlainLines(stream, seconds=0))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("step 0: held-out loss ")
    assert lines[1].startswith("step 1/3  loss 0.")
    assert lines[1].endswith(" s left")
    assert "tokens/s" in lines[1]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"training folder .*file/run cannot be written"):
        train(tmp_path / "file" / "run", TrainPlan(steps=1))
    assert Path(tmp_path / "file").is_file()
