"""One vector, four ways: as of END from history, as materialised, as served, as computed on demand."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import yaml
from feast import FeatureStore

from qanchor_plugin import schemas as S
from qanchor_plugin.prefix_store import LakeTables
from tests.e2e.conftest import END, Example

pytestmark = [pytest.mark.e2e, pytest.mark.spark]

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
