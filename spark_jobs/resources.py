"""What a task that runs the engine needs of its executor: cores, and GPUs where there are some."""

from typing import TYPE_CHECKING

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import QAnchorError

if TYPE_CHECKING:
    from pyspark.resource import ResourceProfile
    from pyspark.sql import SparkSession

GPU = "gpu"
"""Spark's name of the resource."""


def engine_profile(spark: "SparkSession", settings: Settings) -> "ResourceProfile | None":
    """The stage-level profile of the stages that run the engine; None when the settings ask for none.

    It has task requests alone, so it fits executors that are there already: with dynamic allocation off,
    Spark takes it on standalone clusters, YARN and Kubernetes (and ``local-cluster``).

    Raises:
        QAnchorError: a local master, which knows no profiles.
    """
    if not settings.spark_gpus and not settings.spark_task_cpus:
        return None
    master = spark.sparkContext.master or ""
    if master == "local" or master.startswith("local["):
        raise QAnchorError(
            f"spark_gpus and spark_task_cpus need a cluster; the master is {master!r}, where Spark knows no "
            "stage-level resources. Remove them from feature_store.yaml (one process uses the GPU it finds: "
            "'device: auto'), or name a cluster in spark_master."
        )
    from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

    cpus = settings.spark_task_cpus or int(spark.conf.get("spark.task.cpus", "1") or 1)
    requests = TaskResourceRequests().cpus(cpus)
    if settings.spark_gpus:
        requests = requests.resource(GPU, settings.spark_gpus)
    return ResourceProfileBuilder().require(requests).build


def device_of_task(device: str) -> str:
    """The device of this task: its own GPU where Spark gave it one, else as configured."""
    from pyspark import TaskContext

    context = TaskContext.get()
    given = None if context is None else context.resources().get(GPU)
    if given is None or device == "cpu":
        return device
    return f"cuda:{given.addresses[0]}"
