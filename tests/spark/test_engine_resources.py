"""Stages that run the engine under a resource profile of their own, where executors are processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import QAnchorError
from spark_jobs.resources import engine_profile
from spark_jobs.tables import Lake
from tests.spark.world import make_world, on, purchases_of_day

pytestmark = pytest.mark.spark

SEEN_RESOURCES = """
import json, sys
from pathlib import Path
from qanchor_plugin.declare import Settings
from spark_jobs.resources import device_of_task, engine_profile
from spark_jobs.session import get_session

settings = Settings.from_mapping(json.loads(Path("settings.json").read_text()), repo_path=Path.cwd())
spark = get_session(settings)

def seen(batches):
    import pyarrow as pa
    from pyspark import TaskContext
    for _ in batches:
        context = TaskContext.get()
        gpus = context.resources().get("gpu")
        addresses = "" if gpus is None else ",".join(gpus.addresses)
        said = {"cpus": [context.cpus()], "gpus": [addresses], "device": [device_of_task("auto")]}
        yield pa.RecordBatch.from_pydict(said)

rows = spark.range(1).repartition(1)
columns = "cpus long, gpus string, device string"
inside = rows.mapInArrow(seen, columns, profile=engine_profile(spark, settings)).collect()[0]
outside = rows.mapInArrow(seen, columns).collect()[0]
print(json.dumps([inside.asDict(), outside.asDict()]))
spark.stop()
"""


def test_without_a_wish_there_is_no_profile_and_a_local_master_refuses_one(spark: SparkSession):
    assert engine_profile(spark, Settings(lake="l")) is None
    with pytest.raises(QAnchorError, match=r"the master is 'local\[2\]'"):
        engine_profile(spark, Settings(lake="l", spark_gpus=1))


def _settings(folder: Path, **changed: object) -> None:
    given = {
        "lake": "lake",
        "clock": on(30).isoformat(),
        "device": "cpu",
        "spark_master": "local-cluster[1,2,1024]",
        "spark_conf": {"spark.driver.memory": "1g", "spark.executor.memory": "1g"},
        "log_folder": "logs",
        **changed,
    }
    (folder / "settings.json").write_text(json.dumps(given))


def _run(folder: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_task_of_the_profile_has_its_cores_and_its_own_gpu_and_others_have_none(tmp_path: Path):
    """The GPU is one in name: a discovery script says it is there, as it does on a real cluster."""
    script = tmp_path / "gpus.sh"
    script.write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["3"]}'\n""")
    script.chmod(0o755)
    found = {
        f"spark.{where}.resource.gpu.{name}": value
        for where in ("worker", "executor")
        for name, value in (("amount", "1"), ("discoveryScript", str(script)))
    }
    conf = {"spark.driver.memory": "1g", "spark.executor.memory": "1g", **found}
    _settings(tmp_path, spark_conf=conf, spark_gpus=1, spark_task_cpus=2)
    (tmp_path / "seen.py").write_text(SEEN_RESOURCES)
    inside, outside = json.loads(_run(tmp_path, "seen.py").splitlines()[-1])
    assert inside == {"cpus": 2, "gpus": "3", "device": "cuda:3"}
    assert outside == {"cpus": 1, "gpus": "", "device": "auto"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_refresh_runs_with_cores_of_its_own_for_the_engine(spark: SparkSession, tmp_path: Path):
    world = make_world(spark, tmp_path)
    world.add_cards([(1, on(0), "gold")])
    world.add_purchases(purchases_of_day(1))
    (tmp_path / "declarations.json").write_text(world.declarations.to_json())
    _settings(tmp_path, spark_task_cpus=2)
    command = ["-m", "spark_jobs.refresh", "--end", on(5).isoformat()]
    command += ["--declarations", "declarations.json", "--settings", "settings.json"]
    assert json.loads(_run(tmp_path, *command))["state"] == "succeeded"
    rows = Lake(spark, world.settings).read("scenario_embeddings").collect()
    assert len(rows) == 2 * 4
    assert {row[S.NUM_EVENTS] for row in rows} == {1}
