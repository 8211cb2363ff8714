"""The synthetic world through the ordinary jobs: a lake, pairs before the cutoff, and embeddings two ways."""

from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from benchmarks.world import tuned
from benchmarks.world.data import make_data
from benchmarks.world.declarations import ASKED, Place
from benchmarks.world.embed import embed_directly, embed_through_feast, entity_keys, largest_difference
from benchmarks.world.lake import make_lake
from benchmarks.world.margin import FUTURE_BINS, future_cutoff, towers_of
from benchmarks.world.training import lake_of_share, make_pairs, untrained
from benchmarks.world.variants import Variant
from qanchor_plugin.backend import LocalBackend
from qanchor_plugin.backend.protocol import Ask
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.evaluation.synthetic import World
from qanchor_plugin.evaluation.synthetic.vocabulary import MODALITIES
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.schemas import PAIRS_TABLE
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from qanchor_plugin.training.tuning import TunePlan
from qanchor_plugin.training.tuning.behaviour import users_at
from qanchor_plugin.training.useru.future import future_query

pytestmark = [pytest.mark.spark, pytest.mark.slow]

USERS = range(30)


@pytest.fixture(scope="module")
def place(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(folder=tmp_path_factory.mktemp("world"), world=World(num_users=60, seed=5, events_scale=0.3))
    rows = make_data(made)
    counts = make_lake(made)
    assert counts["events"] == sum(rows[name] for name in (*MODALITIES, "tabular"))
    assert counts["texts"] == counts["vectors"] > 250
    return made


def test_a_second_lake_is_no_work(place: Place) -> None:
    assert make_lake(place) == {"events": 0, "texts": 0, "vectors": 0}


def test_feast_and_the_engine_give_the_same_embeddings(place: Place, tmp_path: Path) -> None:
    direct = embed_directly(place, "demo", ASKED, USERS)
    through_feast = embed_through_feast(place, "demo", ASKED, USERS, tmp_path / "store")
    assert list(direct) == list(through_feast) == list(ASKED)
    assert direct["concert"].shape == (30, 128)
    assert largest_difference(direct, through_feast) < 1e-5
    assert largest_difference(direct, {**direct, "money": direct["fraud"]}) > 0.01


def test_pairs_end_before_the_cutoff_and_a_share_of_them_is_a_share_of_users(place: Place) -> None:
    num_pairs = make_pairs(place, questions_per_shard=8)
    pairs = DeltaTable(str(place.lake / PAIRS_TABLE)).to_pyarrow_table()
    assert pairs.num_rows == num_pairs > 0
    assert set(pairs["kind"].to_pylist()) == {"future", "outcome"}
    latest = max(at.timestamp() for at in pairs["cutoff"].to_pylist()) * 1_000_000
    assert latest + 30 * MICROS_PER_DAY < place.cutoff_us
    share = lake_of_share(place, 0.5)  # one shard holds all 60: half of it is at least one
    assert DeltaTable(str(share / PAIRS_TABLE)).to_pyarrow_table().num_rows == num_pairs
    assert (share / "behaviour_sequences").resolve() == (place.lake / "behaviour_sequences").resolve()


def test_the_towers_read_users_as_the_backend_does(place: Place) -> None:
    engine = QueryAnchorEngine.load("demo", device="cpu")
    user, answer = towers_of(place, engine, list(USERS))
    ask = Ask(profile=place.profile, query=future_query(FUTURE_BINS), engine="demo")
    keys = entity_keys(place.profile.entities[0], USERS)
    served = LocalBackend(place.settings()).embed(keys, future_cutoff(place), [ask])
    expected = np.array([one[0].embedding for one in served if one[0] is not None])
    np.testing.assert_allclose(user, expected, atol=5e-3)  # stored tokens are float16
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1.0, atol=1e-5)


def test_the_meaning_space_is_fitted_as_training_would(place: Place) -> None:
    make_pairs(place, questions_per_shard=8)
    own, texts, behaviour = (
        QueryAnchorEngine.load(str(untrained(place, Variant(name="any"), space=space)), device="cpu")
        for space in ("engine", "texts", "behaviour")
    )
    basis = texts.modules.space.basis.numpy()
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-4)
    assert float((texts.modules.space.basis - own.modules.space.basis).abs().max()) > 0.01
    assert behaviour.config.space == "behaviour"
    assert len({own.digest, texts.digest, behaviour.digest}) == 3


def test_prompts_and_probes_never_see_the_labels_of_the_judged(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "LABELLED_SHARES", (0.5, 1.0))
    monkeypatch.setattr(tuned, "PLAN", TunePlan(steps=3, evaluate_every=1, held_out=0.0))
    tuner = tuned.Tuner(place, "demo", list(range(60)))
    assert (tuner.num_judged, tuner.sizes) == (12, [24, 48])
    labels = np.arange(60) % 2 == 0
    other = np.concatenate([labels[:48], ~labels[48:]])
    ranks, again = tuner.ranks("takeout", labels), tuner.ranks("takeout", other)
    assert list(ranks) == [
        f"{kind}, {size} labelled" for size in (24, 48) for kind in (tuned.PLAIN, tuned.TUNED)
    ]
    for name, found in ranks.items():
        assert found.shape == (1, 12)
        np.testing.assert_array_equal(found, again[name])
    seen = tuner.ranks("takeout", np.concatenate([~labels[:48], labels[48:]]))
    assert any(not np.array_equal(found, seen[name]) for name, found in ranks.items())


def test_users_at_a_cutoff_are_those_that_the_backend_answers_for(place: Place) -> None:
    engine = QueryAnchorEngine.load("demo", device="cpu")
    keys = entity_keys(place.profile.entities[0], USERS)
    read = users_at(keys, place.cutoff_us, place.profile, engine, LakeTables(place.settings().lake))
    assert [one.user for one in read.slices] == [one.user for one in read.prefixes] == keys
    query = engine.prepare_query(ASKED["takeout"])
    made = engine.embed(read.prefixes, [query], [read.cutoff] * len(keys))[:, 0]
    direct = embed_directly(place, "demo", {"takeout": ASKED["takeout"]}, USERS)
    np.testing.assert_allclose(made, direct["takeout"], atol=1e-5)
