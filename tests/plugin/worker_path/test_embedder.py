"""What a Spark task asks: its own engine, or a pool, by the settings alone."""

import pickle

import numpy as np
import pytest

from qanchor_plugin.declare import Settings
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.engine.prefix import Prefix
from qanchor_plugin.errors import BackendError, LakeError
from spark_jobs.embedder import OnExecutor, OnWorkers, embedder_of, pool_of
from spark_jobs.engines import AskedGroup, AskedQuery, EngineRef, workers_of
from tests.plugin.worker_path.workers import start_stub
from tests.shop import PROFILE
from tests.stub_worker import ENGINE_DIGEST, known_vector

ENGINE = EngineRef(
    name="stub",
    device="cpu",
    digest=ENGINE_DIGEST,
    prefix_digest="p" * 32,
    encoder_id="encoder",
    encoder_dim=4,
    suffix_knows_time=False,
)
QUERIES = [
    AskedQuery(scenario=name, scenario_id=name[0] * 32, query=f"{name}?", soft_prompt=None)
    for name in ("milk", "wine")
]


def prefix(user: bytes, tokens: np.ndarray) -> Prefix:
    return Prefix(
        user=user,
        visible_digest="v" * 32,
        as_of=5,
        num_events=1,
        tokens=tokens,
        positions=np.arange(len(tokens), dtype=np.int32),
    )


def group(workers: WorkerSettings | None) -> AskedGroup:
    return AskedGroup(profile=PROFILE, engine=ENGINE, queries=tuple(QUERIES), workers=workers)


def test_the_settings_choose():
    pool = WorkerSettings(addresses=("127.0.0.1:1",))
    assert workers_of(Settings(lake="l")) is None
    assert workers_of(Settings(lake="l", worker=pool)) is None
    assert workers_of(Settings(lake="l", worker=pool, spark_embeds_on="workers")) == pool
    assert isinstance(embedder_of(group(None)), OnExecutor)
    travelled = pickle.loads(pickle.dumps(group(pool)))  # as Spark sends a closure to its tasks
    assert isinstance(embedder_of(travelled), OnWorkers)
    assert pool_of(travelled.workers) is pool_of(pool)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_soft_tokens_go_and_vectors_come_back_in_order(dtype: type):
    stub = start_stub()
    workers = WorkerSettings(addresses=(stub.address,), timeout_ms=20_000)
    try:
        prefixes = [prefix(f"user-{n}".encode(), np.full((3 + n, 4), n, dtype)) for n in range(5)]
        made = embedder_of(group(workers)).embed(prefixes, QUERIES, [7, 8, 9, 10, 11])
    finally:
        stub.kill()
        pool_of(workers).close()
    assert made.dtype == np.float32
    for row, one in enumerate(prefixes):
        for column, query in enumerate(QUERIES):
            np.testing.assert_array_equal(made[row, column], known_vector(one.user, query.query))


def test_tokens_of_an_unknown_type_are_refused_before_they_travel():
    workers = WorkerSettings(addresses=("127.0.0.1:1",), timeout_ms=500)
    with pytest.raises(LakeError, match="float64"):
        embedder_of(group(workers)).embed([prefix(b"u", np.ones((2, 4)))], QUERIES, [7])
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:1"):
        embedder_of(group(workers)).embed([prefix(b"u", np.ones((2, 4), np.float32))], QUERIES, [7])
