"""The refresh where executors are processes of their own."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from spark_jobs.tables import Lake
from tests.spark.world import make_world, on, purchases_of_day

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_whole_refresh_on_two_executors_by_its_own_main(spark: SparkSession, tmp_path: Path) -> None:
    world = make_world(spark, tmp_path)
    world.add_cards([(1, on(0), "gold")])
    world.add_purchases(purchases_of_day(1))
    (tmp_path / "declarations.json").write_text(world.declarations.to_json())
    settings = {
        "lake": "lake",
        "clock": on(30).isoformat(),
        "device": "cpu",
        "spark_master": "local-cluster[2,1,1024]",
        "spark_conf": {"spark.driver.memory": "1g", "spark.executor.memory": "1g"},
        "log_folder": "logs",
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    command = [
        sys.executable, "-m", "spark_jobs.refresh", "--end", on(5).isoformat(),
        "--declarations", str(tmp_path / "declarations.json"), "--settings", str(tmp_path / "settings.json"),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["state"] == "succeeded"
    assert report["counts"]["sequences"]["purchases"]["rows"] == 4
    rows = Lake(spark, world.settings).read("scenario_embeddings").collect()
    assert len(rows) == 2 * 4
    assert {row[S.NUM_EVENTS] for row in rows} == {1}
    assert timedelta(seconds=report["seconds"]) > timedelta(0)
