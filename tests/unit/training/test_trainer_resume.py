"""A run that was killed, cut off or starved of disk goes on as if nothing had been."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from qanchor_plugin.errors import EngineError
from qanchor_plugin.training.trainer import Trainer, TrainPlan
from tests.unit.training.toy_training import KILLED_PLAN, ToyObjective, batch_of, held_out, train

PLAN = TrainPlan(steps=10, learning_rate=0.02, evaluate_every=3, checkpoint_every=3)
ROOT = Path(__file__).parents[3]


def steps_logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return sum('"learning_rate"' in line for line in path.read_text().splitlines()) if path.is_file() else 0


def test_a_run_killed_with_signal_9_reaches_the_same_losses_and_weights(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.unit.training.toy_training", str(tmp_path / "killed")]
    with subprocess.Popen(command, env=environment, cwd=ROOT) as child:
        deadline = time.monotonic() + 300
        while steps_logged(tmp_path / "killed") < 18 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    killed_at = steps_logged(tmp_path / "killed")
    assert 18 <= killed_at < KILLED_PLAN.steps
    resumed, whole = ToyObjective(), ToyObjective()
    torch.set_num_threads(1)
    after = Trainer(resumed, batch_of, held_out, KILLED_PLAN, tmp_path / "killed").run(resume=True)
    undisturbed = Trainer(whole, batch_of, held_out, KILLED_PLAN, tmp_path / "whole").run()
    assert after.resumed_from is not None
    assert 0 < after.resumed_from <= killed_at
    assert after.losses == undisturbed.losses  # bit for bit, those before the kill included
    assert after.held_out == undisturbed.held_out
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(folder, PLAN)
    return folder


@pytest.fixture
def two_checkpoints(tmp_path: Path) -> Path:
    """A run of 6 of 10 steps that stopped after its second checkpoint, and its losses."""
    folder = tmp_path / "two"

    def cut(number: int) -> object:
        if number == 6:
            raise KeyboardInterrupt
        return batch_of(number)

    torch.set_num_threads(1)
    with pytest.raises(KeyboardInterrupt):
        Trainer(ToyObjective(), cut, held_out, PLAN, folder).run()
    assert sorted(one.name for one in (folder / "checkpoints").iterdir()) == [
        "step-00000003",
        "step-00000006",
    ]
    return folder


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "absent"])
def test_a_broken_checkpoint_is_passed_over_and_the_one_before_it_used(
    two_checkpoints, finished, file, damage
):
    path = two_checkpoints / "checkpoints" / "step-00000006" / file
    body = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(body[: len(body) // 2] if damage == "truncated" else b"\x00" + body[1:])
    report = train(two_checkpoints, PLAN, resume=True)
    assert report.resumed_from == 3
    assert "passed over a broken checkpoint" in report.notes[0]
    assert "step-00000006" in report.notes[0]
    told = [json.loads(one) for one in (finished / "metrics.jsonl").read_text().splitlines()]
    assert list(report.losses) == [(one["step"], one["loss"]) for one in told if "loss" in one]


def test_without_one_whole_checkpoint_the_run_is_refused(two_checkpoints):
    for one in (two_checkpoints / "checkpoints").iterdir():
        (one / "weights.safetensors").write_bytes(b"")
    with pytest.raises(EngineError, match=r"no checkpoint in .* is whole.*step-00000006.*step-00000003"):
        train(two_checkpoints, PLAN, resume=True)


def test_before_the_first_checkpoint_a_resumed_run_starts_anew_and_says_so(tmp_path):
    (tmp_path / "checkpoints" / ".writing-x").mkdir(parents=True)
    report = train(tmp_path, TrainPlan(steps=2, evaluate_every=0), resume=True)
    assert report.resumed_from is None
    assert "starts anew" in report.notes[0]
    assert not (tmp_path / "checkpoints" / ".writing-x").exists()


def test_a_finished_run_resumes_to_its_own_report(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "again")
    report = train(tmp_path / "again", PLAN, resume=True)
    assert (report.resumed_from, report.steps, len(report.losses)) == (10, 10, 10)


def test_another_plan_is_named_value_by_value_and_harmless_changes_are_not(two_checkpoints):
    other = TrainPlan(**{**vars(PLAN), "steps": 20, "learning_rate": 0.5})
    with pytest.raises(EngineError, match=r"another run: learning_rate: 0.02, now 0.5; steps: 10, now 20"):
        train(two_checkpoints, other, resume=True)
    same = TrainPlan(**{**vars(PLAN), "log_every": 2, "keep_checkpoints": 1})
    assert train(two_checkpoints, same, resume=True).resumed_from == 6


def test_another_engine_or_other_data_are_named(two_checkpoints):
    with pytest.raises(EngineError, match=r"another run: engine: None, now 'abc'"):
        train(two_checkpoints, PLAN, resume=True, identity={"engine": "abc"})


def test_another_architecture_is_named_tensor_by_tensor(two_checkpoints):
    wider = Trainer(ToyObjective(width=16), batch_of, held_out, PLAN, two_checkpoints)
    with pytest.raises(
        EngineError, match=r"another architecture: body.0.bias is .*\(8,\).*\(16,\) in the model"
    ):
        wider.run(resume=True)
    fewer = ToyObjective()
    fewer.body[3].requires_grad_(False)
    with pytest.raises(EngineError, match=r"body.3.bias is only in the checkpoint"):
        Trainer(fewer, batch_of, held_out, PLAN, two_checkpoints).run(resume=True)


def test_a_folder_with_a_run_is_not_overwritten(two_checkpoints):
    with pytest.raises(EngineError, match=r"holds a run of 6 steps. Give --resume"):
        train(two_checkpoints, PLAN)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_during_a_checkpoint_leaves_the_last_good_one(small_disk, tmp_path):
    plan = TrainPlan(steps=8, evaluate_every=0, keep="last", checkpoint_every=2)
    width = 25_000  # 150,001 weights: a checkpoint has 1.8 MB

    def run(folder: Path, resume: bool):
        torch.set_num_threads(1)
        return Trainer(ToyObjective(width), batch_of, list, plan, folder).run(resume=resume)

    with pytest.raises(
        EngineError, match=r"step-00000006 could not be written .*No space.*last good one is .*04"
    ):
        run(small_disk / "run", False)
    names = sorted(one.name for one in (small_disk / "run" / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000004"]
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    report = run(small_disk / "run", True)
    assert report.resumed_from == 4
    assert report.losses == run(tmp_path / "roomy", False).losses
