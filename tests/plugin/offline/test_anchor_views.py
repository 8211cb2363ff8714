"""Anchor views through Feast's historical calls, over a real lake and the demo engine."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore

from qanchor_plugin.errors import DeclarationError
from tests.plugin.conftest import CLOCK
from tests.plugin.offline.anchor_store import open_store

pytestmark = pytest.mark.spark

FULL: dict[str, Any] = {"full_feature_names": True}


def asked(**more: Any) -> pd.DataFrame:
    at = [CLOCK, CLOCK - timedelta(microseconds=1), CLOCK, CLOCK, datetime(2017, 4, 1, tzinfo=UTC), CLOCK]
    return pd.DataFrame({"user_id": [2, 2, 1, 99, 1, 1], "event_timestamp": at, **more})


REFS = [f"cheese:{name}" for name in ("embedding", "num_events", "as_of", "cutoff", "status", "embedding_id")]


@pytest.fixture(scope="module")
def exact(store: FeatureStore) -> pd.DataFrame:
    """One call for everything: anchors in two modes, an on-demand view over one, and a query of each row."""
    given = asked(anchor_query=["Will they buy cheese?"] * 6)
    refs = [*REFS, "served:embedding", "served:status", "first_number:first"]
    job = store.get_historical_features(given, [*refs, "ask_shopper:embedding", "ask_shopper:status"], **FULL)
    return job.to_df()


def test_each_row_sees_what_stood_at_its_instant_to_the_microsecond(exact: pd.DataFrame) -> None:
    assert exact["cheese__num_events"].fillna(-1).tolist() == [1, 0, 2, -1, 0, 2]
    assert exact["cheese__status"].tolist() == ["computed"] * 3 + ["unknown"] + ["computed"] * 2
    assert exact["cheese__embedding"][3] is None
    assert exact["cheese__as_of"][0] == pd.Timestamp(CLOCK)
    assert exact["cheese__as_of"][2] == pd.Timestamp("2017-05-20 09:00", tz="UTC")
    assert exact["cheese__cutoff"][4] == pd.Timestamp("2017-04-01", tz="UTC")
    lengths = [np.linalg.norm(exact["cheese__embedding"][row]) for row in (0, 1, 2, 4, 5)]
    np.testing.assert_allclose(lengths, 1.0, atol=1e-5)
    assert exact["cheese__embedding"][2].tolist() == exact["cheese__embedding"][5].tolist()
    assert exact["cheese__embedding_id"][2] == exact["cheese__embedding_id"][5]


def test_exact_at_the_end_is_what_the_refresh_stored_and_what_as_served_reads_later(
    store: FeatureStore, base: Path, exact: pd.DataFrame
) -> None:
    provider = store._get_provider()
    source = store.get_feature_view("cheese").batch_source
    newest = (
        provider.offline_store.pull_latest_from_table_or_query(
            store.config,
            source,
            ["user_id"],
            ["embedding", "embedding_id"],
            "event_timestamp",
            None,
            datetime(2000, 1, 1, tzinfo=UTC),
            datetime(2100, 1, 1, tzinfo=UTC),
        )
        .to_df()
        .set_index("user_id")
    )
    assert sorted(newest.index) == [1, 2, 3]
    for row in (0, 2):
        user = exact["user_id"][row]
        np.testing.assert_allclose(newest["embedding"][user], exact["cheese__embedding"][row], atol=1e-6)
        assert newest["embedding_id"][user] == exact["cheese__embedding_id"][row]
    later = pd.DataFrame({"user_id": [2, 99], "event_timestamp": [datetime.now(UTC) + timedelta(days=1)] * 2})
    found = store.get_historical_features(later, ["served:embedding", "served:status"], **FULL).to_df()
    assert found["served__status"].tolist() == ["stored", "missing"]
    every = provider.offline_store.pull_all_from_table_or_query(
        store.config, source, ["user_id"], ["embedding"], "event_timestamp"
    ).to_df()
    assert len(every) >= 3


def test_the_views_tag_asks_for_what_was_served_by_then(exact: pd.DataFrame) -> None:
    expected = ["stored", "missing", "stored", "missing", "missing", "stored"]
    assert exact["served__status"].tolist() == expected
    assert exact["served__embedding"].notna().tolist() == [one == "stored" for one in expected]


def test_answers_are_never_sent_whole_to_every_task(store: FeatureStore) -> None:
    job = store.get_historical_features(asked(), ["cheese:embedding", "served:embedding"], **FULL)
    plan = job.to_spark_df()._jdf.queryExecution().executedPlan().toString()
    lines = [(len(line) - len(line.lstrip(" :+-*")), line) for line in plan.splitlines()]
    sent = [place for place, (_, line) in enumerate(lines) if "BroadcastExchange" in line]
    assert "MapInArrow" in plan
    assert sent
    for place in sent:
        depth = lines[place][0]
        below = itertools.takewhile(lambda one, depth=depth: one[0] > depth, lines[place + 1 :])
        assert not [line for _, line in below if "MapInArrow" in line or "max_by" in line]


def test_the_stores_mode_rules_views_that_say_nothing_and_nobody_given_is_everybody(
    base: Path, store: FeatureStore
) -> None:
    served = open_store(base, point_in_time="as_served")
    job = served.get_historical_features(None, ["cheese:num_events", "cheese:status"], end_date=CLOCK, **FULL)
    found = job.to_df().sort_values("user_id")
    assert found["user_id"].tolist() == [1, 2, 3]
    assert found["cheese__num_events"].tolist() == [2, 1, 0]
    assert set(found["cheese__status"]) == {"stored"}
    before = CLOCK - timedelta(seconds=1)
    early = served.get_historical_features(None, ["cheese:status"], end_date=before, **FULL).to_df()
    assert early["cheese__status"].tolist() == ["missing"] * 3


def test_on_demand_views_run_over_anchors_and_over_queries_nobody_registered(exact: pd.DataFrame) -> None:
    expected = [exact["cheese__embedding"][row][0] for row in (0, 1, 2)]
    np.testing.assert_allclose(exact["first_number__first"][:3], expected, atol=1e-6)
    assert not [name for name in exact.columns if name.startswith("__qanchor")]
    for row in (0, 1, 2, 4, 5):
        own, registered = exact["ask_shopper__embedding"][row], exact["cheese__embedding"][row]
        np.testing.assert_allclose(own, registered, atol=1e-5)
    assert exact["ask_shopper__status"].tolist()[2:4] == ["computed", "unknown"]


def test_anchors_cannot_be_written_by_hand(store: FeatureStore) -> None:
    view = store.get_feature_view("cheese")
    with pytest.raises(DeclarationError, match="its rows are computed"):
        store._get_provider().offline_store.offline_write_batch(store.config, view, None, None)
