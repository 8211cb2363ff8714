"""Users leave the caches of every worker of a pool, and a worker that is away is named."""

import pytest

from qanchor_plugin.backend.worker_caches import forget_hooks
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.errors import BackendError
from tests.shop import user


def test_a_worker_of_the_pool_drops_the_users(start, call):
    worker = start()
    call(worker).embed([1, 2])
    address = worker.server.address.removeprefix("grpc://")
    hooks = forget_hooks(WorkerSettings(addresses=(address,)))
    assert list(hooks) == [f"worker {address}"]
    (forget,) = hooks.values()
    assert forget([user(1), user(4)]) == 1
    assert forget([user(1)]) == 0


def test_a_worker_that_is_away_is_named():
    hooks = forget_hooks(WorkerSettings(addresses=("127.0.0.1:1",), connect_timeout_ms=200, timeout_ms=500))
    with pytest.raises(BackendError, match=r"worker 127\.0\.0\.1:1 did not forget"):
        hooks["worker 127.0.0.1:1"]([user(1)])
    assert forget_hooks(None) == {}
