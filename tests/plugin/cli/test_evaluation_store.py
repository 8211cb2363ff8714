"""A store beside the store: the same lake, other questions and engines; and ``qanchor evaluate`` over it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from feast import FeatureStore

from qanchor_plugin.declare import EntityRef, Modality, Profile, Settings, SourceSpec
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.feast_ext.declarations import declarations_from_registry, settings_from_config
from qanchor_plugin.feast_ext.evaluation_store import AT, evaluation_store, read_embeddings
from spark_jobs.refresh import refresh
from tests.qanchor_command import Qanchor

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]

CLOCK = datetime(2017, 6, 1, tzinfo=UTC)
NUM_USERS = 40
QUESTIONS = {
    "cat_owner": "Does this shopper keep a cat, and buy cat food?",
    "fixed": "What will they do next?",
}


def _profile(folder: Path) -> Profile:
    source = SourceSpec(name="purchases", path=str(folder), event_at="bought_at")
    modality = Modality("purchases", source, "{product}", group_by=("product",), max_events=8)
    entity = EntityRef(name="shopper", join_key="user_id", value_type="INT64")
    return Profile("shoppers", entity, [modality], window=timedelta(days=90))


def _purchases(folder: Path) -> None:
    """Two to five lines of bread, milk or wine each; users 0 to 19 bought cat food besides."""
    random = np.random.default_rng(1)
    rows = []
    for user in range(NUM_USERS):
        bought = [
            *random.choice(["bread", "milk", "wine"], random.integers(2, 6)),
            *(["cat food"] if user < NUM_USERS // 2 else []),
        ]
        days = random.integers(1, 60, len(bought))
        rows += [
            {"user_id": user, "bought_at": CLOCK - timedelta(days=int(day)), "product": product}
            for day, product in zip(days, bought, strict=True)
        ]
    write_deltalake(folder, pa.Table.from_pylist(rows))


@pytest.fixture(scope="module")
def store(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Both questions, asked of the shipped preset, over a lake that was just refreshed."""
    base = tmp_path_factory.mktemp("evaluated")
    _purchases(base / "purchases")
    settings = Settings(lake=str(base / "lake"), clock=CLOCK, device="cpu", log_folder=str(base / "logs"))
    made = evaluation_store(base / "store", settings, _profile(base / "purchases"), QUESTIONS, engine="demo")
    declared = declarations_from_registry(made.registry, made.project)
    refresh(spark, settings_from_config(made.config), declared, end=CLOCK)
    return made


def _rows(users: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"user_id": users, AT: [CLOCK] * len(users)})


def test_a_store_beside_reads_the_same_vectors_and_writes_nothing_to_the_lake(
    store: FeatureStore, tmp_path: Path
) -> None:
    settings = settings_from_config(store.config)
    lake, users = Path(settings.lake), [3, 1, 30]
    before = sorted((path, path.stat().st_mtime_ns) for path in lake.rglob("*") if path.is_file())
    registered = read_embeddings(store, _rows(users), list(QUESTIONS))
    profile = _profile(lake.parent / "purchases")
    beside = evaluation_store(
        tmp_path / "beside", settings, profile, {"other_name": QUESTIONS["cat_owner"]}, engine="demo"
    )
    np.testing.assert_allclose(
        read_embeddings(beside, _rows(users), ["other_name"])[:, 0], registered[:, 0], atol=1e-6
    )
    folder = tmp_path / "engine"
    QueryAnchorEngine.untrained(DEMO.with_(seed=5), device="cpu").save_pretrained(folder)
    fresh = evaluation_store(tmp_path / "fresh", settings, profile, QUESTIONS, engine=str(folder))
    other = read_embeddings(fresh, _rows(users), list(QUESTIONS))
    assert registered.shape == other.shape == (3, 2, 128)
    assert np.abs(other - registered).max() > 0.1
    assert sorted((path, path.stat().st_mtime_ns) for path in lake.rglob("*") if path.is_file()) == before


def test_users_that_nobody_knows_are_counted(store: FeatureStore) -> None:
    with pytest.raises(InputDataError, match=r"1 of 2 rows name users .* \[\{'user_id': 99\}\]"):
        read_embeddings(store, _rows([1, 99]), ["fixed"])


def _evaluate(qanchor: Qanchor, store: FeatureStore, labels: Path, *more: str):
    arguments = ("evaluate", "cat_owner", "fixed", "--labels", str(labels), "--label-column", "cat")
    return qanchor(*arguments, "--repo", str(store.repo_path), *more)


def test_evaluate_tells_the_right_question_from_activity(
    qanchor: Qanchor,
    store: FeatureStore,
    tmp_path: Path,
) -> None:
    labels, page = tmp_path / "labels.csv", tmp_path / "report.html"
    frame = _rows(list(range(NUM_USERS))).assign(cat=[1] * 20 + [0] * 20)
    frame.to_csv(labels, index=False)
    said = _evaluate(qanchor, store, labels, "--against", "untrained", "--report", str(page), "--json")
    assert said.code == 0, said.err
    found = {row["model"]: row for row in said.json["models"]}
    assert list(found) == ["activity alone", "cat_owner", "fixed", "cat_owner, untrained", "fixed, untrained"]
    assert found["cat_owner"]["auc"] > 0.9
    assert (found["cat_owner"]["num_users"], found["cat_owner"]["num_positive"]) == (40, 20)
    assert 0 < found["activity alone"]["auc_standard_error"] < 0.2
    assert found["cat_owner"]["gain"] == pytest.approx(
        found["cat_owner"]["auc"] - found["activity alone"]["auc"]
    )
    assert "qanchor evaluate cat_owner fixed" in page.read_text()
    shown = _evaluate(qanchor, store, labels, "--folds", "3")
    assert "n = 40, 20 positive" in shown.out


def test_labels_before_any_behaviour_are_refused_or_left_out(
    qanchor: Qanchor,
    store: FeatureStore,
    tmp_path: Path,
) -> None:
    labels = tmp_path / "labels.csv"
    frame = _rows([*range(NUM_USERS), 99]).assign(cat=[1] * 20 + [0] * 21)
    frame.loc[5, AT] = datetime(2016, 1, 1, tzinfo=UTC)
    frame.to_csv(labels, index=False)
    said = _evaluate(qanchor, store, labels)
    assert said.code == 1
    assert "2 of 41 labels stand at instants before any behaviour" in " ".join(said.err.split())
    kept = _evaluate(qanchor, store, labels, "--skip-empty", "--json")
    assert kept.code == 0, kept.err
    assert json.loads(kept.out)["num_skipped"] == 2
    assert kept.json["models"][0]["num_users"] == 39
