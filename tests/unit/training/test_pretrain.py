"""Pre-training end to end on a small lake: a loadable engine, and a file that says how it came to be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qanchor_plugin.declare import Settings
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.errors import EngineError, InputDataError
from qanchor_plugin.training.batches import BatchPlan
from qanchor_plugin.training.pair_table import PairTable
from qanchor_plugin.training.pretrain import PretrainPlan, pretrain, starting_engine
from qanchor_plugin.training.trainer import TrainPlan
from tests.shop import ShopLake, at, demo_engine
from tests.unit.training.pair_lake import PROFILE, built, pair_lake

BATCHES = BatchPlan(readings_per_step=4, queries_per_step=2)
TRAIN = TrainPlan(steps=4, learning_rate=1e-3, evaluate_every=2, checkpoint_every=2, keep="last")
PLAN = PretrainPlan(train=TRAIN, batches=BATCHES, device="cpu")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> ShopLake:
    lake = pair_lake(tmp_path_factory.mktemp("pretrain") / "lake")
    lake.write_vectors(demo_engine())
    built(lake, "2017-12-01")
    return lake


@pytest.fixture(scope="module")
def settings(lake: ShopLake) -> Settings:
    torch.set_num_threads(1)
    return Settings(lake=str(lake.folder), device="cpu")


@pytest.fixture(scope="module")
def trained(settings: Settings, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, pretrain(settings, PROFILE, PLAN, folder)


def test_the_trained_engine_is_another_one_that_loads_by_its_folder(trained):
    folder, report = trained
    engine = QueryAnchorEngine.load(str(folder / "engine"), device="cpu")
    assert engine.digest == report.digest_after != report.digest_before
    assert report.digest_before == demo_engine().digest
    assert len(report.train.losses) == 4


def test_training_json_says_plan_data_and_losses(trained):
    folder, report = trained
    told = json.loads((folder / "training.json").read_text())
    assert told["plan"]["train"]["steps"] == 4
    assert told["profile"] == "journey"
    assert (told["known_until"], told["pairs_version"]) == (at("2017-12-01"), 0)
    assert told["num_pairs"] == [22 * 10, 2 * 10]
    assert told["train"]["losses"][-1][1] == report.train.losses[-1][1]
    assert {"digest_before", "digest_after", "num_small_batches"} <= told.keys()


def test_the_same_plan_gives_the_same_engine_and_resuming_one_that_is_done_changes_nothing(
    trained, settings, tmp_path
):
    _, report = trained
    again = pretrain(settings, PROFILE, PLAN, tmp_path)
    assert again.digest_after == report.digest_after
    resumed = pretrain(settings, PROFILE, PLAN, tmp_path, resume=True)
    assert resumed.train.resumed_from == 4
    assert resumed.digest_after == report.digest_after
    other = PretrainPlan(**{**vars(PLAN), "batches": BatchPlan(readings_per_step=5, queries_per_step=2)})
    with pytest.raises(
        EngineError, match=r"another run: batches: .*readings_per_step': 4.*readings_per_step': 5"
    ):
        pretrain(settings, PROFILE, other, tmp_path, resume=True)


def test_pairs_of_later_than_allowed_or_of_another_profile_are_refused(settings, tmp_path):
    early = PretrainPlan(**{**vars(PLAN), "until": at("2017-11-30")})
    with pytest.raises(InputDataError, match=r"up to 2017-12-01T00:00:00Z.*qanchor pairs --until 2017-11-30"):
        pretrain(settings, PROFILE, early, tmp_path)
    lake = pair_lake(tmp_path / "lake")
    here = Settings(lake=str(lake.folder), device="cpu")
    with pytest.raises(InputDataError, match="nothing says how far the pairs look"):
        pretrain(here, PROFILE, early, tmp_path)
    built(lake, "2017-10-01", profile_digest="other")
    with pytest.raises(InputDataError, match="another profile or another version of 'journey'"):
        pretrain(here, PROFILE, PLAN, tmp_path)


def test_an_ablation_changes_the_config_of_a_preset_and_of_a_folder(trained):
    folder, _ = trained
    cpu = torch.device("cpu")
    for name in ("demo", str(folder / "engine")):
        engine = starting_engine(PretrainPlan(engine=name, engine_changes={"user_token": False}), cpu)
        assert engine.config.user_token is False
        assert engine.modules.config.user_token is False
    weights = QueryAnchorEngine.load(str(folder / "engine"), device="cpu").modules.state_dict()
    for key, value in engine.modules.state_dict().items():
        assert torch.equal(value, weights[key])
    with pytest.raises(EngineError, match=r"do not fit an engine config.*wings"):
        starting_engine(PretrainPlan(engine_changes={"wings": 2}), cpu)
    with pytest.raises(EngineError, match=r"another architecture|does not fit"):
        starting_engine(PretrainPlan(engine=str(folder / "engine"), engine_changes={"num_layers": 3}), cpu)


def test_training_may_begin_with_a_space_of_the_users_own_behaviour(settings, tmp_path):
    plan = PretrainPlan(**{**vars(PLAN), "space": "behaviour"})
    report = pretrain(settings, PROFILE, plan, tmp_path)
    engine = QueryAnchorEngine.load(str(report.engine_folder), device="cpu")
    assert engine.config.space == "behaviour"
    assert report.fitted_space == "22 users by 3 groups, directions beyond chance: 1"
    assert report.digest_before != demo_engine().digest
    asked = engine.encoder.encode(PairTable(settings.lake).questions(most=10_000))
    assert np.allclose(engine.modules.space.query_mean.numpy(), asked.astype(np.float64).mean(0), atol=1e-6)
    again = pretrain(settings, PROFILE, plan, tmp_path, resume=True)
    assert again.digest_after == report.digest_after
    other = PretrainPlan(**{**vars(PLAN), "space": "engine"})
    with pytest.raises(EngineError, match="another architecture"):
        pretrain(settings, PROFILE, other, tmp_path, resume=True)
    with pytest.raises(InputDataError, match="space is 'names'; accepted are"):
        PretrainPlan(space="names")


def test_gradient_checkpointing_needs_a_language_model(settings, tmp_path):
    plan = PretrainPlan(
        **{**vars(PLAN), "train": TrainPlan(**{**vars(TRAIN), "gradient_checkpointing": True})}
    )
    with pytest.raises(EngineError, match="no language model"):
        pretrain(settings, PROFILE, plan, tmp_path)
    assert Path(tmp_path).is_dir()
