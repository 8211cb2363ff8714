"""Pushes and the real batch: the same event has the same identity both ways, and is one throughout."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from feast import FeatureStore, PushSource
from feast.data_source import PushMode
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import LakeReader
from qanchor_plugin.declare import Modality, Profile, Settings
from qanchor_plugin.feast_ext import anchor_view, push_view
from qanchor_plugin.feast_ext.push_rows import pushed_rows
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.prefix_store.pushed import shared_pushed
from spark_jobs.progress import Silent
from spark_jobs.pushed import catch_up
from spark_jobs.refresh_steps import Run
from spark_jobs.runs import RunClock
from spark_jobs.session import in_utc
from spark_jobs.tables import Lake
from tests.plugin.conftest import CLOCK, QUERY, StoreMaker, purchases_source, shopper

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]
NOW = datetime(2024, 3, 10, tzinfo=UTC)
TYPES = (
    "user_id long, at timestamp, brand string, size int, weight float, price decimal(8,2), organic boolean,"
    " best_by date, shelf long"
)
ROWS: list[tuple[Any, ...]] = [
    (1, datetime(2024, 3, 1, 9, 0, 0, 1, tzinfo=UTC), " Oak  farm", 3, 0.1, Decimal("2.50"), True,
     date(2024, 4, 1), 7),
    (1, datetime(2024, 2, 29, 23, 59, tzinfo=UTC), "Elm", None, None, None, None, None, None),
    (1, datetime(2024, 2, 29, 23, 59, tzinfo=UTC), "Elm", None, None, None, None, None, None),
    (2, datetime(2024, 3, 2, tzinfo=UTC), None, -1, 2.0, Decimal("0.00"), False, date(1999, 1, 1), 0),
    (2, datetime(2024, 3, 2, tzinfo=UTC), "Ahorn ☕", 0, 1e-7, Decimal("12345.67"), True, None, 123456789012),
]  # fmt: skip


class Both:
    """A source of many types, with its lake, filled by pushes and by the batch's own first steps."""

    def __init__(self, spark: "SparkSession", folder: Path) -> None:
        self.spark, self.folder = spark, folder
        spark.createDataFrame([], TYPES).write.format("delta").save(str(folder / "raw"))
        source = SparkSource(
            name="raw", path=str(folder / "raw"), table_format=DeltaFormat(), timestamp_field="at"
        )
        modality = Modality(
            "purchases",
            source,
            "{brand} {size} {weight} {price} {organic} {best_by}",
            group_by=("brand", "shelf"),
            amounts=("price", "weight"),
        )
        self.profile = Profile("journey", shopper(), [modality])
        self.push_source = push_view(
            PushSource(name="raw_push", batch_source=source), self.profile
        ).batch_source
        self.settings = Settings(lake=str(folder / "lake"), clock=NOW, device="cpu")
        self.lake = Lake(spark, self.settings)
        self.lake.ensure()

    def push(self, rows: list[tuple[Any, ...]]) -> None:
        frame = pd.DataFrame(rows, columns=[one.split()[0] for one in TYPES.split(", ")])
        shared_pushed(self.settings.lake).append(pushed_rows(self.push_source, frame, now=NOW))

    def refresh(self, rows: list[tuple[Any, ...]]) -> dict[str, int]:
        """The batch has read the source with these rows added, and cleaned up."""
        new = self.spark.createDataFrame(rows, TYPES).coalesce(1)
        new.write.format("delta").mode("append").save(str(self.folder / "raw"))
        with in_utc(self.spark):
            run = Run(self.lake, self.settings, RunClock(self.settings), NOW, Silent(), full=False)
            with run.recorded():
                run.sequences([self.profile])
                run.pushed()
        return next((dict(row.counts) for row in run.rows if row.job == "pushed"), {})

    def num_events(self) -> dict[str, int]:
        """What a reader sees of each user."""
        tables = LakeTables(self.settings.lake, max_age_seconds=0)
        users = tables.read("behaviour_sequences")[S.USER].to_pylist()
        held = shared_pushed(self.settings.lake)
        held.of([], ())
        found = LakeReader(tables, pushed=held).histories(self.profile, list({*users, *held._users}))
        return {one.user_key: len(one.events["purchases"]) for one in found.values()}


@pytest.fixture
def both(spark: "SparkSession", tmp_path: Path) -> Both:
    return Both(spark, tmp_path)


SEEN = {'{"user_id": 1}': 3, '{"user_id": 2}': 2}


@pytest.mark.slow
def test_pushed_rows_of_every_type_are_the_batch_s_own_events(both: Both):
    both.push(ROWS[:3])
    both.push([ROWS[4], ROWS[3]])
    assert both.num_events() == SEEN
    assert both.refresh([]) == {"caught_up": 0, "given_up": 0, "waiting": 5, "left": 0}
    assert both.refresh(ROWS[:2]) == {"caught_up": 1, "given_up": 0, "waiting": 4, "left": 0}
    assert both.num_events() == SEEN
    assert both.refresh(ROWS[2:4]) == {"caught_up": 3, "given_up": 0, "waiting": 1, "left": 0}
    assert both.num_events() == SEEN
    both.push(ROWS[:1])
    assert both.num_events() == SEEN
    assert both.refresh(ROWS[4:]) == {"caught_up": 2, "given_up": 0, "waiting": 0, "left": 0}
    assert both.num_events() == SEEN
    assert both.refresh([]) == {}


@pytest.mark.slow
def test_events_that_the_batch_never_brings_are_given_up_and_said(
    both: Both, caplog: pytest.LogCaptureFixture
):
    both.push(ROWS[:1])
    table = both.folder / "lake" / "pushed_events"
    old = DeltaTable(table).to_pyarrow_table().to_pylist()
    old[0] |= {S.PUSHED_AT: datetime.now(UTC) - timedelta(days=7, seconds=1), S.PUSHED_ROW: "old"}
    write_deltalake(table, pa.Table.from_pylist(old, schema=S.PUSHED_EVENTS), mode="append")
    with caplog.at_level(logging.WARNING):
        assert both.refresh([]) == {"caught_up": 0, "given_up": 1, "waiting": 1, "left": 0}
    assert "1 pushed events were not brought by the batch within 7 days and are given up" in caplog.text
    patient = replace(both.settings, pushed_days=8)
    assert catch_up(Lake(both.spark, patient), patient)["given_up"] == 0


@pytest.fixture
def store(spark: "SparkSession", make_store: StoreMaker, tmp_path: Path) -> Iterator[FeatureStore]:
    """Applied by Feast, with user 1's first purchase in the source, and materialised to the clock."""
    folder = tmp_path / "purchases"
    rows = [(1, datetime(2017, 5, 1, 9, tzinfo=UTC), "oak", "cheese", "dairy", 3.0)]
    schema = "user_id long, bought_at timestamp, brand string, product string, category string, price double"
    spark.createDataFrame(rows, schema).coalesce(1).write.format("delta").save(str(folder))
    source = purchases_source(folder)
    modality = Modality("purchases", source, "{brand} {product}", group_by=("category",), amounts=("price",))
    profile = Profile("journey", shopper(), [modality], window=timedelta(days=90))
    push = PushSource(name="purchases_push", batch_source=source)
    made = make_store(max_compute_ms=60_000)
    made.apply(
        [shopper(), push, push_view(push, profile), anchor_view("cheese", QUERY, profile, timedelta(days=7))]
    )
    made.materialize(CLOCK - timedelta(days=30), CLOCK)
    yield made
    for name in ("misses", "write_back", "pushes"):
        if name in made.provider.__dict__:
            getattr(made.provider, name).close()


FEATURES = ["cheese:embedding_id", "cheese:num_events", "cheese:status"]
MILK = pd.DataFrame(
    {
        "user_id": [1],
        "bought_at": [pd.Timestamp("2017-05-31 12:00", tz="UTC")],
        "brand": ["elm"],
        "product": ["oat milk"],
        "category": ["drinks"],
        "price": [2.0],
    }
)


def online(store: FeatureStore) -> list[Any]:
    found = store.get_online_features(FEATURES, [{"user_id": 1}], full_feature_names=True).to_dict()
    return [found[f"cheese__{name}"][0] for name in ("embedding_id", "num_events", "status")]


def historical(store: FeatureStore, at: datetime) -> tuple[Any, int]:
    rows = pd.DataFrame({"user_id": [1], "event_timestamp": [at]})
    found = store.get_historical_features(rows, FEATURES[:2], full_feature_names=True).to_df()
    return found["cheese__embedding_id"][0], found["cheese__num_events"][0]


@pytest.mark.slow
def test_online_and_history_agree_once_the_batch_has_caught_up(store: FeatureStore):
    assert online(store)[1:] == [1, "stored"]
    store.push("purchases_push", MILK, to=PushMode.ONLINE_AND_OFFLINE)
    pushed, num_events, status = online(store)
    assert (num_events, status) == (2, "computed")
    assert historical(store, CLOCK)[1] == 1  # history is of the batch alone
    store.provider.write_back.flush()
    store.materialize(CLOCK - timedelta(days=30), CLOCK)
    assert online(store) == [pushed, 2, "stored"]
    assert historical(store, CLOCK) == (pushed, 2)
    assert historical(store, datetime(2017, 5, 31, 11, tzinfo=UTC))[1] == 1
    assert DeltaTable(Path(store.provider.settings.lake) / "pushed_events").to_pyarrow_table().num_rows == 0
