"""The refresh writes keys and values where the policy says so, and a worker's reader answers from them."""

from dataclasses import replace

import numpy as np
import pytest
from pyspark.sql import SparkSession

from qanchor_plugin.backend import Ask, LocalBackend
from qanchor_plugin.prefix_store import LakeTables
from spark_jobs.refresh import refresh
from spark_jobs.tables import Lake
from tests.spark.world import make_world, on, purchases_of_day

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]


@pytest.mark.slow
def test_written_by_spark_and_read_by_delta_rs(spark: SparkSession, tmp_path) -> None:
    world = make_world(spark, tmp_path, kv="always", kv_scheme="int8")
    world.add_cards([(1, on(0), "gold")])
    world.add_purchases([row for day in (0, 1, 2) for row in purchases_of_day(day)])
    refresh(world.spark, world.settings, world.declarations, end=on(3))
    rows = Lake(spark, world.settings).read("user_prefixes").collect()
    assert {row.kv_scheme for row in rows} == {"int8"}
    profile = world.declarations.profiles["shopper"]
    asked = [Ask(profile=profile, query="Will they buy milk?", engine="demo")]
    backend = LocalBackend(world.settings, tables=LakeTables(world.settings.lake))
    users, end = [bytes(row.user) for row in rows], round(on(3).timestamp() * 1e6)
    answers = backend.embed(users, end, asked)
    assert backend.counts["prefix_delta"] == backend.counts["kv_loaded"] == len(users) > 2
    embeddings = Lake(spark, world.settings).read("scenario_embeddings")
    stored = embeddings.where("scenario = 'milk_buyer'").collect()
    of_job = {bytes(row.user): np.array(row.embedding) for row in stored}
    plain = LocalBackend(replace(world.settings, kv="never"), tables=LakeTables(world.settings.lake))
    apart = []
    for one, (answer,), (prefilled,) in zip(users, answers, plain.embed(users, end, asked), strict=True):
        np.testing.assert_allclose(of_job[one], answer.embedding, atol=1e-5)
        assert float(answer.embedding @ prefilled.embedding) >= 0.9995
        apart.append(np.abs(answer.embedding - prefilled.embedding).max())
    assert max(apart) > 1e-4, "so the job answered from the stored keys too, not from a prefill of its own"
