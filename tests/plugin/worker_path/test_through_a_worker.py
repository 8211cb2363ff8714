"""Online reads whose misses a separately started ``qanchor worker`` answers, by configuration alone."""

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore

from qanchor_plugin.backend import LocalBackend
from qanchor_plugin.backend.flight import FlightBackend
from qanchor_plugin.feast_ext import counters, on_demand
from qanchor_plugin.feast_ext.anchor_view import anchor_view
from qanchor_plugin.feast_ext.online_rows import Anchor
from tests.plugin.online.conftest import QUERIES, Shop, read, spend_view, vector
from tests.plugin.worker_path.real_worker import RealWorker
from tests.shop import PROFILE, at, demo_engine, shop_lake, user

pytestmark = pytest.mark.timeout(300)

FEATURES = [f"{name}:{field}" for name in QUERIES for field in ("embedding", "status")]
BUDGET_SECONDS = 2.0
SLACK = 1.5


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A registered shop over SQLite, its misses computed in process until a worker is named."""
    folder = tmp_path_factory.mktemp("through")
    lake = shop_lake(folder / "lake", demo_engine())
    settings = {"lake": "lake", "clock": "2018-01-01T00:00:00Z", "engine": "demo", "device": "cpu"}
    made = Shop(folder=folder, lake=lake, online={"type": "sqlite", "path": "online.db"}, settings=settings)
    views = [anchor_view(name, query, PROFILE, timedelta(days=7)) for name, query in QUERIES.items()]
    made.register(made.store(), *views, spend_view(folder))
    yield made
    made.close()


@pytest.fixture(scope="module")
def worker(shop: Shop) -> Iterator[RealWorker]:
    """The worker of that repo, and the repo's configuration that names it."""
    started = RealWorker("--repo", str(shop.folder), log=shop.folder / "worker.log").ready()
    shop.write_yaml(
        max_compute_ms=round(BUDGET_SECONDS * 1000),
        worker={"addresses": [started.address], "breaker_seconds": 0.5, "breaker_failures": 2},
    )
    yield started
    if started.process.poll() is None:
        started.stop()


def fresh(shop: Shop) -> FeatureStore:
    """A store object as a new process has it, its online store empty."""
    (shop.folder / "online.db").unlink(missing_ok=True)
    store = shop.store()
    kept = [store.get_feature_view(name) for name in (*QUERIES, "spend")]
    store.provider.online_store.update(store.config, [], kept, [], [], partial=True)
    return store


def households(*ids: int) -> list[dict[str, Any]]:
    return [{"household_id": one} for one in ids]


def in_process(store: FeatureStore, household_id: int, name: str) -> np.ndarray:
    """The vector that an engine in this process gives."""
    settings = replace(store.provider.settings, worker=None)
    ask = Anchor.of(store.get_feature_view(name)).ask("demo")
    return LocalBackend(settings).embed([user(household_id)], at("2018-01-01"), [ask])[0][0].embedding


@pytest.mark.parametrize("asynchronous", [False, True])
def test_misses_are_those_of_an_engine_in_process(shop: Shop, worker: RealWorker, asynchronous: bool):
    store = fresh(shop)
    shop.put(store, "dairy_buyer", 1, seed=3)
    found = read(store, FEATURES, households(2, 1, 4, 3), asynchronous)
    assert isinstance(store.provider.backend, FlightBackend)
    assert found["dairy_buyer__status"] == ["computed", "stored", "unknown", "computed"]
    assert found["wine_buyer__status"] == ["computed", "computed", "unknown", "computed"]
    assert found["dairy_buyer__embedding"][1] == vector(3)
    for name, row, household_id in (("dairy_buyer", 0, 2), ("wine_buyer", 1, 1), ("dairy_buyer", 3, 3)):
        np.testing.assert_allclose(
            found[f"{name}__embedding"][row], in_process(store, household_id, name), atol=1e-5
        )
    store.provider.write_back.flush()
    again = read(store, FEATURES, households(2), asynchronous)
    assert again["dairy_buyer__status"] == ["stored"]
    assert again["dairy_buyer__embedding"][0] == found["dairy_buyer__embedding"][0]


def test_a_query_that_nobody_registered_is_answered_by_the_worker_too(shop: Shop, worker: RealWorker):
    store = fresh(shop)
    asker = on_demand.AdhocAsker(
        store.provider.settings, lambda: store.provider.misses, store.registry, "shop"
    )
    inputs = pd.DataFrame({"household_id": [2, 4], "anchor_query": [QUERIES["wine_buyer"]] * 2})
    with on_demand.answering_with(asker):
        found = on_demand.answer_adhoc(inputs, "journey")
    assert found["status"].tolist() == ["computed", "unknown"]
    np.testing.assert_allclose(found["embedding"][0], in_process(store, 2, "wine_buyer"), atol=1e-5)


def test_the_command_line_asks_the_worker(shop: Shop, worker: RealWorker, monkeypatch: Any):
    from qanchor_plugin.cli.embed import answer

    def refuse(self: LocalBackend, *arguments: Any, **named: Any) -> None:
        raise AssertionError("an engine was asked in this process")

    store = shop.store()
    expected = in_process(store, 1, "dairy_buyer")
    monkeypatch.setattr(LocalBackend, "embed", refuse)
    found = answer([QUERIES["dairy_buyer"]], ["1"], None, None, shop.folder)
    np.testing.assert_allclose(found.answers[0][0].embedding, expected, atol=1e-5)


def test_concurrent_identical_misses_are_one_call_and_the_event_loop_goes_on(shop: Shop, worker: RealWorker):
    store = fresh(shop)
    before = counters.COALESCED._value.get()

    async def many() -> tuple[list[dict[str, Any]], float]:
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        asked = [
            store.get_online_features_async(FEATURES, households(1, 2, 3), full_feature_names=True)
            for _ in range(12)
        ]
        found = await asyncio.gather(*asked)
        ticking.cancel()
        await store.provider.online_store.close()
        return [one.to_dict() for one in found], float(np.max(np.diff(ticks)))

    found, longest = asyncio.run(many())
    assert all(one["dairy_buyer__status"] == ["computed"] * 3 for one in found)
    assert all(one["wine_buyer__embedding"] == found[0]["wine_buyer__embedding"] for one in found)
    assert counters.COALESCED._value.get() > before
    assert longest < 1.0
    store.provider.write_back.flush()


def test_a_hung_worker_leaves_stored_rows_readable_and_costs_no_more_than_the_budget(shop: Shop):
    from tests.plugin.worker_path.workers import silent_server

    with silent_server() as address:
        shop.write_yaml(max_compute_ms=400, worker={"addresses": [address]})
        store = fresh(shop)
        shop.put(store, "dairy_buyer", 1, seed=3)
        shop.put(store, "dairy_buyer", 2, seed=4, cutoff="2017-06-01")
        _check_dead(store, budget=0.4)


def _check_dead(store: FeatureStore, *, budget: float) -> None:
    """Stored rows stand, a stale one is served as such, the rest is null, and all within the budget."""
    features = [name for name in FEATURES if name.startswith("dairy")]
    for _ in range(3):
        started = time.monotonic()
        found = read(store, features, households(1, 2, 3))
        assert time.monotonic() - started < budget + SLACK
        assert found["dairy_buyer__status"] == ["stored", "stale", "missing"]
        assert found["dairy_buyer__embedding"] == [vector(3), vector(4), None]


def test_a_worker_killed_and_started_again_is_used_again_without_a_new_caller(shop: Shop, worker: RealWorker):
    shop.write_yaml(
        max_compute_ms=round(BUDGET_SECONDS * 1000),
        worker={"addresses": [worker.address], "breaker_seconds": 0.5, "breaker_failures": 2},
    )
    store = fresh(shop)
    assert read(store, FEATURES, households(3))["dairy_buyer__status"] == ["computed"]
    store.provider.write_back.flush()
    worker.kill()
    store = fresh(shop)
    shop.put(store, "dairy_buyer", 1, seed=3)
    shop.put(store, "dairy_buyer", 2, seed=4, cutoff="2017-06-01")
    _check_dead(store, budget=BUDGET_SECONDS)
    second = RealWorker(
        "--repo", str(shop.folder), log=shop.folder / "worker.log", listen=worker.address
    ).ready()
    try:
        until = time.monotonic() + 30
        status = "missing"
        while status != "computed" and time.monotonic() < until:
            status = read(store, FEATURES, households(3))["dairy_buyer__status"][0]
        assert status == "computed"
    finally:
        second.stop()


def test_the_worker_said_nothing_about_people_in_its_log(shop: Shop, worker: RealWorker):
    """Its log is JSON lines of the operator's: queries of ours stand in none."""
    text = Path(shop.folder / "worker.log").read_text()
    assert os.linesep in text
    assert QUERIES["wine_buyer"] not in text
