"""``qanchor train`` over a literal lake: an engine's folder, what it says next, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from qanchor_plugin.engine import QueryAnchorEngine
from tests.qanchor_command import Qanchor
from tests.shop import PROFILE, ShopLake, at, demo_engine, shop_lake
from tests.unit.training.pair_lake import built, literal_pairs, write_pairs

from .conftest import register, write_repo


@pytest.fixture(scope="module")
def own_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registered repo whose lake has three households and no pairs."""
    folder = tmp_path_factory.mktemp("train") / "shop"
    write_repo(folder)
    shop_lake(folder / "lake", demo_engine())
    register(folder)
    return folder


@pytest.fixture
def with_pairs(own_shop: Path, tmp_path: Path) -> Path:
    """The same with pairs that look no further than 2017-12-31."""
    folder = tmp_path / "shop"
    shutil.copytree(own_shop, folder)
    write_pairs(folder / "lake", literal_pairs([1, 2, 3], [at("2017-12-25")]))
    built(ShopLake(folder / "lake"), "2017-12-31", profile_digest=PROFILE.digest)
    return folder


def test_without_pairs_the_command_that_makes_them_is_named(qanchor: Qanchor, own_shop: Path, tmp_path: Path):
    said = qanchor("train", "--repo", str(own_shop), "--output", str(tmp_path / "e"))
    assert (said.code, said.out) == (1, "")
    assert "qanchor pairs --until" in " ".join(said.err.split())
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("names", "space is 'names'; accepted are ['engine', 'texts', 'behaviour']"),
        ("behaviour", "3 users share 0"),
    ],
)
def test_a_space_that_is_unknown_or_has_too_few_users_is_refused(
    qanchor: Qanchor, with_pairs: Path, tmp_path: Path, space: str, told: str
):
    where = ["--repo", str(with_pairs), "--output", str(tmp_path / "e")]
    said = qanchor("train", *where, "--space", space)
    assert (said.code, said.out) == (1, "")
    assert told in " ".join(said.err.split())
    assert not (tmp_path / "e").exists()


def test_an_engine_is_trained_resumed_and_the_next_step_said(
    qanchor: Qanchor, with_pairs: Path, tmp_path: Path
):
    where = ["--repo", str(with_pairs), "--output", str(tmp_path / "e"), "--steps", "2", "--lr", "1e-4"]
    said = qanchor("train", *where, "--profile", "journey", "--json")
    assert said.code == 0, said.err
    assert said.json["train"]["steps"] == 2
    assert said.json["known_until"] == at("2017-12-31")
    engine = QueryAnchorEngine.load(said.json["engine_folder"], device="cpu")
    assert engine.digest == said.json["digest_after"] != said.json["digest_before"]
    plan = json.loads((tmp_path / "e" / "training.json").read_text())["plan"]
    assert (plan["train"]["learning_rate"], plan["engine"], plan["device"]) == (1e-4, "demo", "cpu")
    assert qanchor("train", *where).code == 1  # a run stands there
    again = qanchor("train", *where, "--resume")
    assert again.code == 0, again.err
    told = " ".join(again.out.split())
    assert "no held-out user has pairs" in told
    assert f"set 'engine: {tmp_path / 'e' / 'engine'}' in feature_store.yaml" in told
    assert "feast apply and feast materialize" in told


def test_pairs_that_look_too_far_and_unknown_profiles_are_refused(
    qanchor: Qanchor, with_pairs: Path, tmp_path: Path
):
    where = ["--repo", str(with_pairs), "--output", str(tmp_path / "e")]
    said = qanchor("train", *where, "--until", "2017-12-30")
    assert said.code == 1
    assert "later than --until 2017-12-30" in " ".join(said.err.split())
    assert "journey" in qanchor("train", *where, "--profile", "journy").err
    assert "warp" in qanchor("train", *where, "--engine", "warp").err
    assert "learning_rate is -1.0" in qanchor("train", *where, "--lr", "-1").err
