"""Online writes: an older row never replaces a newer one, over SQLite and Redis."""

import traceback
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from feast.infra.online_stores.helpers import get_online_store_from_config

from qanchor_plugin.errors import OnlineStoreError
from qanchor_plugin.feast_ext import online_rows as R
from qanchor_plugin.feast_ext.materialize_online import _executor_writer
from qanchor_plugin.feast_ext.online_write import OnlineWriter
from spark_jobs.failures import named_failures
from tests.plugin.online.conftest import Shop, household_key, vector

EARLY = datetime(2026, 1, 1, 12, tzinfo=UTC)


def write(shop, store, seed, written_at, ids=(1,)):
    import numpy as np

    from qanchor_plugin.backend import Answer

    answer = Answer(
        embedding=np.array(vector(seed), np.float32),
        embedding_id="x-y",
        cutoff=0,
        as_of=None,
        num_events=0,
    )
    rows = [(household_key(one), R.answer_features(answer, R.STORED), written_at, None) for one in ids]
    writer = OnlineWriter(store.config, get_online_store_from_config(store.config.online_store))
    return writer.write(store.get_feature_view("dairy_buyer"), rows)


def stands(store, household_id=1):
    view = store.get_feature_view("dairy_buyer")
    rows = store.provider.online_read(store.config, view, [household_key(household_id)], ["embedding"])
    return list(rows[0][1]["embedding"].float_list_val.val)


def test_a_later_run_wins_and_an_earlier_one_does_not(shop: Shop):
    store = shop.store()
    write(shop, store, 1, EARLY)
    write(shop, store, 2, EARLY + timedelta(minutes=1))
    assert stands(store) == vector(2)
    write(shop, store, 3, EARLY + timedelta(seconds=30))
    assert stands(store) == vector(2)


def test_of_a_batch_only_the_newer_rows_are_written(sqlite_shop: Shop):
    store = sqlite_shop.store()
    assert write(sqlite_shop, store, 1, EARLY + timedelta(hours=1)) == 1
    assert write(sqlite_shop, store, 2, EARLY, ids=(1, 2)) == 1
    assert (stands(store, 1), stands(store, 2)) == (vector(1), vector(2))


def test_a_store_that_cannot_be_written_is_named(sqlite_shop: Shop):
    store = sqlite_shop.store()
    sqlite_shop.online = {"type": "sqlite", "path": "other.db"}
    with pytest.raises(OnlineStoreError, match=r"sqlite at other\.db failed.*Run feast apply"):
        write(sqlite_shop, sqlite_shop.store(), 1, EARLY)
    assert store.project == "shop"


def test_an_executor_says_which_store_is_down_and_the_driver_raises_just_that(sqlite_shop: Shop):
    """What a Python worker of Spark raises reaches the driver as text; it becomes the worker's own error."""
    from feast.infra.common.serde import SerializedArtifacts
    from pyspark.errors import PythonException

    store = sqlite_shop.store()
    view = store.get_feature_view("dairy_buyer")
    sqlite_shop.online = {"type": "redis", "connection_string": "127.0.0.1:1,password=secret"}
    artifacts = SerializedArtifacts.serialize(feature_view=view, repo_config=sqlite_shop.store().config)
    work = _executor_writer(artifacts, lambda _view, _batch: [(household_key(1), {}, EARLY, None)], 10)
    batch = pa.RecordBatch.from_pydict({"user": [b"u"]})
    with pytest.raises(OnlineStoreError, match=r"redis at 127\.0\.0\.1:1 failed") as raised:
        list(work(iter([batch])))
    told = "".join(traceback.format_exception(raised.value))
    with (
        pytest.raises(OnlineStoreError, match=r"redis at 127\.0\.0\.1:1 failed.*Start it") as named,
        named_failures("x"),
    ):
        raise PythonException(message=f"An exception was thrown from the Python worker:\n{told}\n")
    assert str(named.value) == str(raised.value)
    assert "secret" not in str(named.value)
