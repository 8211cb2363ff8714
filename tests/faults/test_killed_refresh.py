"""Kill -9 of the refresh at every commit and in between: a re-run ends in an undisturbed run's tables."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from spark_jobs.refresh import refresh
from tests.faults.drivers import END, Driver, assert_same_rows, reading, rows_of, start
from tests.spark.world import World, make_world, on, purchases_of_day

pytestmark = [pytest.mark.spark, pytest.mark.timeout(1800)]
NUM_CREATED = len(S.TABLES)
"""Commits that only make empty tables."""

NUM_RANDOM_POINTS = 18


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(spark, tmp_path_factory.mktemp("sources"))
    made.add_cards([(1, on(0), "gold"), (2, on(0), "blue"), (5, on(0), "grey")])
    made.add_purchases([row for day in (0, 1, 2) for row in purchases_of_day(day)])
    return made


@pytest.fixture(scope="module")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    return rerun(world, tmp_path_factory.mktemp("undisturbed") / "lake")


def rerun(world: World, lake: Path) -> dict[str, list]:
    settings = replace(world.settings, lake=str(lake))
    refresh(world.spark, settings, world.declarations, end=END)
    return rows_of(world, lake)


def killed_then_rerun(
    world: World, folder: Path, reached: Callable[[Driver], bool], undisturbed: dict[str, list]
) -> None:
    with reading(folder / "lake") as stop:
        driver = start(world, folder)
        try:
            driver.run_until(reached)
        finally:
            driver.kill()
        assert_same_rows(rerun(world, folder / "lake"), undisturbed)
        told = stop()
    assert told["faults"] == []
    for name, counts in told["seen"].items():
        assert set(counts) <= {0, len(undisturbed[name])}, f"{name}: a part of a commit was seen"


def after_commits(num: int, seconds: float = 0.0) -> Callable[[Driver], bool]:
    """Reached so many seconds after that many commits beyond the empty tables."""
    since: list[float] = []

    def reached(driver: Driver) -> bool:
        if driver.num_commits() >= NUM_CREATED + num and not since:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= seconds

    return reached


@pytest.mark.parametrize("num_commits", [3])
def test_killed_at_a_commit(
    world: World, undisturbed: dict[str, list], tmp_path: Path, num_commits: int
) -> None:
    killed_then_rerun(world, tmp_path, after_commits(num_commits), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("num_commits", range(-NUM_CREATED + 1, 10))
def test_killed_at_every_commit(
    world: World, undisturbed: dict[str, list], tmp_path: Path, num_commits: int
) -> None:
    killed_then_rerun(world, tmp_path, after_commits(num_commits), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_RANDOM_POINTS))
def test_killed_at_random(world: World, undisturbed: dict[str, list], tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    point = after_commits(dice.randint(-1, 6), dice.uniform(0, 3))
    killed_then_rerun(world, tmp_path, point, undisturbed)
