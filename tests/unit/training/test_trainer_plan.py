"""The rates of a plan, and what a plan refuses."""

import pytest

from qanchor_plugin.errors import EngineError
from qanchor_plugin.training.trainer import TrainPlan
from qanchor_plugin.training.trainer.early_stopping import EarlyStopping
from qanchor_plugin.training.trainer.plan import changed


def test_one_cycle_goes_up_from_a_25th_and_down_to_a_10000th() -> None:
    plan = TrainPlan(steps=11, learning_rate=2.0, warmup_share=4 / 11)
    rates = [plan.learning_rate_at(step) for step in range(11)]
    # Up: 0.08 + 1.92 * (1 - cos(pi * step / 4)) / 2. Step 4 is the peak, 7 the middle of the way down.
    assert rates[0] == pytest.approx(0.08)
    assert rates[2] == pytest.approx(1.04)
    assert rates[4] == pytest.approx(2.0)
    assert rates[7] == pytest.approx((2.0 + 2e-4) / 2)
    assert rates[10] == pytest.approx(2e-4)


def test_cosine_goes_up_linearly_and_down_to_zero() -> None:
    plan = TrainPlan(steps=9, learning_rate=1.0, warmup_share=4 / 9, schedule="cosine")
    rates = [plan.learning_rate_at(step) for step in range(9)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[6] == pytest.approx(0.5)
    assert rates[8] == pytest.approx(0.0)


def test_without_warmup_the_first_rate_is_the_highest_and_one_step_is_a_plan() -> None:
    assert TrainPlan(steps=1, learning_rate=0.5, warmup_share=0).learning_rate_at(0) == 0.5


def test_a_plan_names_all_its_faults_at_once() -> None:
    with pytest.raises(EngineError) as caught:
        TrainPlan(steps=0, schedule="linear", precision="fp8", learning_rate=float("nan"), warmup_share=1.0)
    for part in (
        "steps is 0",
        "'linear'",
        "one_cycle",
        "'fp8'",
        "learning_rate is nan",
        "warmup_share is 1.0",
    ):
        assert part in str(caught.value)


def test_what_moves_no_weight_may_change_on_resume() -> None:
    before = TrainPlan().to_dict()
    assert changed(before, TrainPlan(log_every=7, keep_checkpoints=9, checkpoint_every=3).to_dict()) == []
    assert changed(before, TrainPlan(steps=301).to_dict()) == [f"steps: {TrainPlan().steps}, now 301"]


def test_patience_counts_looks_since_the_best_and_nan_is_never_best() -> None:
    stopping = EarlyStopping(patience=2)
    assert [stopping.look(step, loss) for step, loss in ((0, float("nan")), (1, 2.0), (2, 1.0))] == [
        False,
        True,
        True,
    ]
    assert not stopping.look(3, 1.0)
    assert not stopping.should_stop
    assert not stopping.look(4, float("nan"))
    assert stopping.should_stop
    assert (stopping.best, stopping.best_step) == (1.0, 2)
    assert not EarlyStopping(patience=0, waited=50).should_stop
