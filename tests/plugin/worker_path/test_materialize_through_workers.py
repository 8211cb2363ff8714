"""``feast materialize`` that embeds through a separately started worker, against one that embeds itself."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from feast import FeatureStore

from qanchor_plugin import schemas as S
from qanchor_plugin.prefix_store import LakeTables
from tests.plugin.conftest import StoreMaker, cheese_view, shopper
from tests.plugin.worker_path.real_worker import RealWorker

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.timeout(500)]

START, END = datetime(2017, 1, 1, tzinfo=UTC), datetime(2017, 6, 1, tzinfo=UTC)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[RealWorker]:
    """A worker that has no lake: soft tokens come to it."""
    options = ("--lake", str(tmp_path / "nothing"), "--engine", "demo", "--no-lake")
    started = RealWorker(*options, log=tmp_path / "worker.log").ready()
    yield started
    started.stop()


def materialized(store: FeatureStore, folder: Path) -> pa.Table:
    """What the lake holds after apply and materialize, by user."""
    store.apply([shopper(), cheese_view(folder)])
    store.materialize(START, END)
    table = LakeTables(store.provider.settings.lake).read("scenario_embeddings")
    return table.sort_by(S.USER)


def test_by_configuration_alone_the_jobs_embed_on_workers(
    spark: "SparkSession", purchases_folder: Path, make_store: StoreMaker, worker: RealWorker
):
    here = materialized(make_store(lake="here"), purchases_folder)
    (Path(make_store().config.repo_path) / "registry.db").unlink()
    there = make_store(lake="there", worker={"addresses": [worker.address]}, spark_embeds_on="workers")
    sent = materialized(there, purchases_folder)
    for name in (S.SCENARIO, S.USER, S.EMBEDDING_ID, S.CUTOFF, S.AS_OF, S.NUM_EVENTS):
        assert sent[name].to_pylist() == here[name].to_pylist()
    assert sent.num_rows == 3
    np.testing.assert_allclose(
        np.array(sent[S.EMBEDDING].to_pylist()), np.array(here[S.EMBEDDING].to_pylist()), atol=1e-5
    )
    served = there.get_online_features(["cheese:embedding"], [{"user_id": 1}], full_feature_names=True)
    first = [row for row in sent.to_pylist() if '"user_id": 1' in row[S.USER_KEY]]
    np.testing.assert_allclose(served.to_dict()["cheese__embedding"][0], first[0][S.EMBEDDING], atol=1e-6)


@pytest.mark.slow
def test_a_pool_that_is_gone_is_an_error_of_the_job_and_leaves_the_lake_as_it_was(
    spark: "SparkSession", purchases_folder: Path, make_store: StoreMaker
):
    store = make_store(worker={"addresses": ["127.0.0.1:1"], "timeout_ms": 2000}, spark_embeds_on="workers")
    store.apply([shopper(), cheese_view(purchases_folder)])
    with pytest.raises(Exception, match=r"127\.0\.0\.1:1"):
        store.materialize(START, END)
    tables = LakeTables(store.provider.settings.lake)
    assert tables.exists("user_prefixes")
    assert not tables.exists("scenario_embeddings") or not tables.read("scenario_embeddings").num_rows
