"""Several processes: the same training as one process with as many batches a step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qanchor_plugin.training.trainer import TrainPlan
from qanchor_plugin.training.trainer.log import losses_of
from tests.unit.training.toy_training import TWO_PROCESS_PLAN, train

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_two_processes_are_one_with_two_batches_a_step(tmp_path):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "true",
    }
    # What accelerate launch --multi_gpu calls; its own launcher starts no second process on a CPU.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "tests.unit.training.toy_training", str(tmp_path / "two"), "--two"]
    told = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500
    )
    assert told.returncode == 0, told.stderr[-3000:]
    one = train(tmp_path / "one", TrainPlan(**{**vars(TWO_PROCESS_PLAN), "accumulate": 2}))
    losses, held_out = losses_of(tmp_path / "two")
    assert len(losses) == TWO_PROCESS_PLAN.steps
    assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in one.losses], abs=1e-6)
    assert [loss for _, loss in held_out] == pytest.approx([loss for _, loss in one.held_out], abs=1e-6)
    assert sorted(one.name for one in (tmp_path / "two" / "checkpoints").iterdir()) == [
        "step-00000004",
        "step-00000006",
    ]
