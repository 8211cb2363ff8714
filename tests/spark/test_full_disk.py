"""A disk that is really full: a small tmpfs holds the lake, and then a larger one."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import LakeError
from spark_jobs.refresh import refresh
from spark_jobs.tables import Lake
from tests.spark.world import World, make_world, on, purchases_of_day

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]


def mount(folder: Path, options: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 220 kB of room; skipped where a tmpfs cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount(folder, "size=220k")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a tmpfs cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


@pytest.fixture
def world(spark: SparkSession, tmp_path: Path, small_disk: Path) -> World:
    made = make_world(spark, tmp_path)
    made.add_cards([(1, on(0), "gold")])
    made.add_purchases([row for day in (0, 1, 2) for row in purchases_of_day(day)])
    return replace(made, settings=replace(made.settings, lake=str(small_disk / "lake")))


def embeddings(world: World) -> dict[tuple[str, str], tuple[str, list[float]]]:
    rows = Lake(world.spark, world.settings).read("scenario_embeddings").collect()
    return {(r[S.SCENARIO], r[S.USER_KEY]): (r[S.EMBEDDING_ID], r[S.EMBEDDING]) for r in rows}


@pytest.mark.slow
def test_a_full_disk_is_named_the_lake_stays_readable_and_room_mends_it(
    world: World, small_disk: Path, tmp_path: Path
) -> None:
    with pytest.raises(LakeError, match="full"):
        refresh(world.spark, world.settings, world.declarations, end=on(5))
    lake = Lake(world.spark, world.settings)
    readable = {name: lake.read(name).count() for name in S.TABLES if lake.exists(name)}
    assert readable.get("scenario_embeddings", 0) == 0, "half a result was committed"

    mount(small_disk, "remount,size=64m")
    refresh(world.spark, world.settings, world.declarations, end=on(5))
    undisturbed = replace(world, settings=replace(world.settings, lake=str(tmp_path / "roomy")))
    refresh(world.spark, undisturbed.settings, world.declarations, end=on(5))
    mended, expected = embeddings(world), embeddings(undisturbed)
    assert {key: one[0] for key, one in mended.items()} == {key: one[0] for key, one in expected.items()}
    assert len(mended) == 2 * 4
    for key, (_, vector) in mended.items():
        np.testing.assert_allclose(vector, expected[key][1], atol=1e-6)
