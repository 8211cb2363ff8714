"""A worker in this process (its sockets are real) over the tiny lake; the demo engine is loaded once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qanchor_plugin.backend import LocalBackend
from qanchor_plugin.declare import Settings
from qanchor_plugin.worker.config import WorkerConfig
from qanchor_plugin.worker.server import AnchorServer
from qanchor_plugin.worker.serving import Serving
from qanchor_plugin.worker.state import WorkerState
from tests.qanchor_command import qanchor  # noqa: F401  (a fixture)
from tests.shop import CLOCK, ShopLake, demo_engine, shop_lake
from tests.worker.asking import QUERY, Caller
from tests.worker.processes import Process


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> ShopLake:
    return shop_lake(tmp_path_factory.mktemp("worker") / "lake", demo_engine())


@pytest.fixture(scope="session")
def settings(lake: ShopLake) -> Settings:
    return Settings(lake=str(lake.folder), clock=CLOCK, engine="demo", device="cpu")


@pytest.fixture(scope="session")
def local(settings: Settings) -> LocalBackend:
    """What every answer is compared with."""
    return LocalBackend(settings)


class Worker:
    """A server with what stands behind it."""

    def __init__(self, config: WorkerConfig, serving: Serving | None) -> None:
        self.config = config
        self.state = WorkerState(config)
        self._before: dict[tuple[str, str], float] = {}
        for family in self.state.metrics.registry.collect():
            self._before |= {(one.name, str(sorted(one.labels.items()))): one.value for one in family.samples}
        self.server = AnchorServer(config, self.state, self.reload)
        if serving is not None:
            serving.watch._metrics = self.state.metrics
            self.state.swap(serving)

    def reload(self) -> dict[str, str]:
        serving = Serving(self.config, self.config.settings, self.state.metrics, anew=False)
        serving.warm_like(self.state.current())
        self.state.swap(serving)
        return serving.engines

    def value(self, name: str, **labels: str) -> float:
        """How far the sample ``qanchor_worker_<name>`` went since the start.

        Feast switches prometheus-client to files shared by a process's registries, so another worker
        of this test run may have counted in it before.
        """
        full = f"qanchor_worker_{name}"
        found = self.state.metrics.registry.get_sample_value(full, labels) or 0.0
        return found - self._before.get((full, str(sorted(labels.items()))), 0.0)

    def close(self) -> None:
        self.state.drain()
        self.state.batcher.close()
        self.server.shutdown()


@pytest.fixture(scope="session")
def serving(settings: Settings) -> Serving:
    """Engines warmed once and lent to every in-process worker."""
    from qanchor_plugin.worker.metrics import Metrics

    config = WorkerConfig(settings=settings, engines=("demo",), warm_queries=(QUERY,))
    return Serving(config, settings, Metrics(), anew=False)


@pytest.fixture
def start(settings: Settings, serving: Serving) -> Iterator[Callable[..., Worker]]:
    """Starts workers in this process: ``start(max_wait_ms=50)``; ``ready=False`` leaves one cold."""
    started: list[Worker] = []

    def make(*, ready: bool = True, limits: dict[str, Any] | None = None, **changed: Any) -> Worker:
        config = WorkerConfig(settings=settings, engines=("demo",), **changed)
        config = replace(config, limits=replace(config.limits, **(limits or {})))
        started.append(Worker(config, serving if ready else None))
        return started[-1]

    yield make
    for one in started:
        one.close()


@pytest.fixture
def call() -> Iterator[Callable[..., Caller]]:
    """Opens connections that are closed after the test."""
    opened: list[Caller] = []

    def connect(worker: Worker | str, **given: Any) -> Caller:
        opened.append(Caller(worker if isinstance(worker, str) else worker.server.address, **given))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


@pytest.fixture
def certificates(tmp_path: Path) -> Any:
    """A throw-away authority."""
    trustme = pytest.importorskip("trustme")
    return trustme.CA()


@pytest.fixture
def repo(tmp_path: Path, lake: ShopLake) -> Path:
    """A feature repo as far as a worker reads it."""
    section = f"qanchor:\n  lake: {lake.folder}\n  clock: 2018-01-01T00:00:00Z\n  device: cpu\n"
    (tmp_path / "feature_store.yaml").write_text("project: shop\nprovider: local\n" + section)
    return tmp_path


@pytest.fixture
def command(repo: Path) -> Iterator[Callable[..., Process]]:
    """Starts ``qanchor worker`` over the tiny lake; it is gone after the test."""
    started: list[Process] = []

    def run(*arguments: str, **environment: str) -> Process:
        started.append(Process(repo, *arguments, **environment))
        return started[-1]

    yield run
    for one in started:
        one.close()
