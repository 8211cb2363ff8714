"""The example store does what the README says, on a sample of the real data.

And one vector, four ways: as of END from history, as materialised, as served, as computed on demand. In this
file because the store is made once a file, and takes most of the time.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import yaml
from deltalake import DeltaTable
from feast import FeatureStore

from feast_repo.demo.store import incomplete
from feast_repo.ingest import ingest
from qanchor_plugin import schemas as S
from qanchor_plugin.prefix_store import LakeTables
from tests.e2e.conftest import END, START, Example

pytestmark = [pytest.mark.e2e, pytest.mark.spark]

CUT = datetime(2017, 9, 1, tzinfo=UTC)
SCENARIOS = [
    "coupon_redeemer",
    "churn_risk",
    "nutrition_buyer",
    "deli_buyer",
    "pet_owner",
    "baby_household",
    "beer_buyer",
]
TOLERANCE = 1e-5
"""Largest absolute difference of a number: fp32, batches of other shapes."""

Vectors = dict[str, npt.NDArray[np.float32]]


def _embeddings(example: Example) -> pd.DataFrame:
    return LakeTables(example.settings.lake).read("scenario_embeddings").to_pandas()


def _events_by_hand(example: Example, household: int, at: datetime) -> int:
    """Events in (at - 365 days, at] of the three event modalities, counted in the files."""
    files = example.files
    starts = files["campaign_descriptions"].set_index("campaign_id").start_date
    instants = [
        pd.to_datetime(files["transactions"].query("household_id == @household").transaction_timestamp),
        pd.to_datetime(files["campaigns"].query("household_id == @household").campaign_id.map(starts)),
        pd.to_datetime(files["coupon_redemptions"].query("household_id == @household").redemption_date)
        + timedelta(days=1),
    ]
    seen = pd.concat(instants).dt.tz_localize("UTC")
    return int(((seen > at - timedelta(days=365)) & (seen <= at)).sum())


def test_every_household_has_every_scenario(example: Example) -> None:
    rows = _embeddings(example)
    num_users, num_scenarios = len(example.households), len(example.declarations.scenarios)
    assert rows.groupby(S.SCENARIO)[S.USER].nunique().to_list() == [num_users] * num_scenarios
    assert rows[S.NUM_EVENTS].median() > 0


def test_num_events_are_those_of_the_files(example: Example) -> None:
    households = example.households[::3]
    rows = pd.DataFrame(
        [{"household_id": one, "event_timestamp": at} for one in households for at in (CUT, END)]
    )
    found = example.store.get_historical_features(
        entity_df=rows, features=["churn_risk:num_events"], full_feature_names=True
    ).to_df()
    seen = found.set_index(["household_id", "event_timestamp"])["churn_risk__num_events"]
    by_hand = [_events_by_hand(example, one, at) for one in households for at in (CUT, END)]
    assert [int(seen[one, pd.Timestamp(at)]) for one in households for at in (CUT, END)] == by_hand


def test_materialising_again_changes_nothing(example: Example) -> None:
    before = _embeddings(example)
    example.store.materialize(START, END)
    after = _embeddings(example)
    assert len(after) == len(before)
    assert sorted(after[S.EMBEDDING_ID]) == sorted(before[S.EMBEDDING_ID])


def test_ingest_again_writes_nothing(example: Example) -> None:
    version = DeltaTable("data/raw/purchases").version()
    written = ingest(example.root, files=example.root / "files", settings=example.settings)
    assert not any(written.values())
    assert DeltaTable("data/raw/purchases").version() == version


def test_a_complete_store_has_nothing_left_to_do(example: Example) -> None:
    assert incomplete(example.store, example.root) == []


def test_training_service_mixes_anchors_and_ordinary_features(example: Example) -> None:
    household = example.households[0]
    rows = pd.DataFrame({"household_id": [household], "event_timestamp": [CUT]})
    found = example.store.get_historical_features(
        entity_df=rows,
        features=example.store.get_feature_service("household_training"),
        full_feature_names=True,
    ).to_df()
    lines = example.files["transactions"].query("household_id == @household")
    before = lines[pd.to_datetime(lines.transaction_timestamp).dt.tz_localize("UTC") < CUT]
    assert found["spend__total"][0] == pytest.approx(before.sales_value.sum(), abs=0.01)
    assert found["spend__lines"][0] == len(before)
    assert len(found["beer_buyer__embedding"][0]) == 128


def test_scoring_service_answers_online(example: Example) -> None:
    household = example.households[0]
    answer = example.store.get_online_features(
        features=example.store.get_feature_service("household_scoring"),
        entity_rows=[{"household_id": household}],
        full_feature_names=True,
    ).to_dict()
    bought = example.files["transactions"].query("household_id == @household")
    instants = pd.to_datetime(bought.transaction_timestamp).dt.tz_localize("UTC")
    assert answer["spend__total"][0] == pytest.approx(bought[instants < END].sales_value.sum(), abs=0.01)
    assert answer["coupon_redeemer__status"] == ["stored"]


def test_a_household_nobody_knows_is_null(example: Example) -> None:
    answer = example.store.get_online_features(
        features=["pet_owner:embedding", "pet_owner:status"],
        entity_rows=[{"household_id": 999_999}],
        full_feature_names=True,
    ).to_dict()
    assert answer["pet_owner__embedding"] == [None]
    assert answer["pet_owner__status"] == ["unknown"]


def test_an_ad_hoc_query_that_is_registered_gives_the_registered_vector(example: Example) -> None:
    household = example.households[3]
    query = example.declarations.scenarios["pet_owner"].query
    answer = example.store.get_online_features(
        features=["ad_hoc:embedding", "pet_owner:embedding"],
        entity_rows=[{"household_id": household, "anchor_query": query}],
        full_feature_names=True,
    ).to_dict()
    ad_hoc, registered = (np.array(answer[f"{one}__embedding"][0]) for one in ("ad_hoc", "pet_owner"))
    np.testing.assert_allclose(ad_hoc, registered, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def asked(example: Example) -> list[int]:
    return example.households[::2]


@pytest.fixture(scope="module")
def exact(example: Example, asked: list[int]) -> Vectors:
    rows = pd.DataFrame({"household_id": asked, "event_timestamp": [END] * len(asked)})
    found = example.store.get_historical_features(
        entity_df=rows, features=[f"{one}:embedding" for one in SCENARIOS], full_feature_names=True
    ).to_df()
    found = found.set_index("household_id").loc[asked]
    return {one: np.stack(found[f"{one}__embedding"].to_list()) for one in SCENARIOS}


def _online(store: FeatureStore, households: list[int], scenario: str) -> tuple[list[str], npt.NDArray]:
    answer = store.get_online_features(
        features=[f"{scenario}:embedding", f"{scenario}:status"],
        entity_rows=[{"household_id": one} for one in households],
        full_feature_names=True,
    ).to_dict()
    return answer[f"{scenario}__status"], np.array(answer[f"{scenario}__embedding"], np.float32)


@pytest.fixture(scope="module")
def empty_online_store(example: Example) -> FeatureStore:
    """The same registry and lake over an online store without a row: every read is a miss."""
    body = yaml.safe_load((example.root / "feature_store.yaml").read_text())
    body["online_store"]["path"] = "data/empty_online_store.db"
    body["qanchor"]["max_compute_ms"] = 60_000
    path = Path("empty_feature_store.yaml")
    path.write_text(yaml.safe_dump(body))
    store = FeatureStore(repo_path=str(example.root), fs_yaml_file=path)
    provider = store._get_provider()
    views = store.list_batch_feature_views()
    provider.update_infra(store.project, [], views, [], store.list_entities(), partial=True)
    return store


def test_every_scenario_is_tested(example: Example) -> None:
    assert sorted(example.declarations.scenarios) == sorted(SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_materialised_is_exact(example: Example, asked: list[int], exact: Vectors, scenario: str) -> None:
    table = LakeTables(example.settings.lake).read("scenario_embeddings").to_pandas()
    table = table[table[S.SCENARIO] == scenario].sort_values(S.SERVED_AT)
    table = table.drop_duplicates(S.USER_KEY).set_index(S.USER_KEY)  # the first: answers to misses come later
    keys = [f'{{"household_id": {one}}}' for one in asked]
    stored = np.stack(table.loc[keys, S.EMBEDDING].to_list())
    np.testing.assert_allclose(stored, exact[scenario], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_online_is_exact(example: Example, asked: list[int], exact: Vectors, scenario: str) -> None:
    status, served = _online(example.store, asked, scenario)
    assert set(status) == {"stored"}
    np.testing.assert_allclose(served, exact[scenario], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_on_demand_is_exact(
    empty_online_store: FeatureStore, asked: list[int], exact: Vectors, scenario: str
) -> None:
    status, computed = _online(empty_online_store, asked, scenario)
    assert set(status) == {"computed"}
    np.testing.assert_allclose(computed, exact[scenario], atol=TOLERANCE, rtol=0)


def test_vectors_are_of_unit_length_and_differ(exact: Vectors) -> None:
    for vectors in exact.values():
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert len(np.unique(vectors.round(4), axis=0)) == len(vectors)
    assert np.abs(exact["pet_owner"] - exact["beer_buyer"]).max() > 0.01
