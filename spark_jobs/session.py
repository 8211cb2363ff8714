"""The process's one Spark session, with Delta, UTC and a log file of its own.

``JAVA_HOME``, ``PYSPARK_PYTHON`` and the ivy cache are read here because Spark itself reads them there.
"""

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import QAnchorError

DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
DELTA_JARS = (
    "io.delta_delta-spark_4.2_2.13-4.4.0.jar",
    "io.delta_delta-storage-4.4.0.jar",
    "io.delta_delta-kernel-api-4.4.0.jar",
    "io.delta_delta-kernel-defaults-4.4.0.jar",
    "io.delta_delta-kernel-unitycatalog-4.4.0.jar",
    "io.unitycatalog_unitycatalog-client-0.6.0.jar",
    "io.unitycatalog_unitycatalog-hadoop-0.6.0.jar",
)
"""The package's jars that PySpark does not bring itself (the other 26 of its 33 are PySpark's own)."""

MIN_JAVA = 17
DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
_TIME_ZONE = "spark.sql.session.timeZone"
_LOG = logging.getLogger(__name__)

logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL + 1)
"""PySpark prints every analysis error as JSON besides raising it."""

logging.getLogger("py4j.clientserver").setLevel(logging.WARNING)
"""Under Feast's logging level it would say goodbye after every command."""


def get_session(settings: Settings, *, app_name: str = "qanchor") -> SparkSession:
    """The process's Spark session: the one that is active, else a new one.

    A new session runs in UTC whatever ``settings.spark_conf`` says; the JVM's and ivy's stderr go to
    ``settings.log_folder``/spark.log.

    Raises:
        QAnchorError: no Java 17, Spark did not start, or the active session lacks Delta.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return _with_delta(active)
    check_java()
    log = Path(settings.log_folder) / "spark.log"
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    master = _master(settings)
    if master is not None:
        builder = builder.master(master)
    for key, value in session_conf(settings).items():
        builder = builder.config(key, value)
    try:
        with _stderr_to(log):
            return builder.getOrCreate()
    except PySparkException as error:
        raise QAnchorError(
            f"Spark did not start (master {master!r}): {error}. Its own words are in {log}. "
            f"If the jars of {DELTA_PACKAGE} could not be fetched, set spark.jars.ivySettings or "
            "spark.jars under qanchor: spark_conf: in feature_store.yaml."
        ) from error


def session_conf(settings: Settings) -> dict[str, str]:
    """Every Spark setting of a new session: our defaults, then the user's, then UTC."""
    conf = {
        "spark.sql.extensions": DELTA_EXTENSION,
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.executorEnv.PYTHONPATH": _python_path(),
        "spark.python.daemon.module": "spark_jobs.worker_daemon",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(Path(settings.log_folder) / "spark-warehouse"),
        "spark.log.level": "WARN",
    }
    if (_master(settings) or "").startswith("local"):
        conf |= {
            "spark.driver.memory": "2g",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "4",
            "spark.databricks.delta.snapshotPartitions": "2",
        }
    user = dict(settings.spark_conf)
    if user.get(_TIME_ZONE, "UTC") != "UTC":
        _LOG.warning("%s=%s is not used: the jobs run in UTC.", _TIME_ZONE, user[_TIME_ZONE])
    conf |= user | {_TIME_ZONE: "UTC"}
    return conf | _delta_jars(conf)


def _master(settings: Settings) -> str | None:
    """The declared master, else this machine; None under ``spark-submit``, which has said it already."""
    if settings.spark_master is not None:
        return settings.spark_master
    return None if "PYSPARK_GATEWAY_PORT" in os.environ else "local[*]"


@contextlib.contextmanager
def in_utc(spark: SparkSession) -> Iterator[None]:
    """Within the block the session's time zone is UTC; afterwards it is what it was."""
    with set_within(spark, _TIME_ZONE, "UTC"):
        yield


@contextlib.contextmanager
def set_within(spark: SparkSession, key: str, value: str) -> Iterator[None]:
    """Within the block the session's setting has this value; afterwards it is what it was."""
    before = spark.conf.get(key)
    spark.conf.set(key, value)
    try:
        yield
    finally:
        spark.conf.set(key, str(before))


def check_java() -> int:
    """The major version of the Java that Spark would run on.

    Raises:
        QAnchorError: there is none, or it is older than 17; says what to install.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    advice = (
        "Spark needs Java 17 or newer. Install it (Debian: apt-get install openjdk-17-jre-headless; "
        "macOS: brew install openjdk@17) and set JAVA_HOME if it is not the first on the PATH."
    )
    if java is None or not Path(java).exists():
        raise QAnchorError(f"No Java was found ({'JAVA_HOME=' + home if home else 'PATH'}). {advice}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)(?:\.(\d+))?', said)
    if found is None:
        raise QAnchorError(f"{java} did not tell its version: {said.strip()[:200]!r}. {advice}")
    major = int(found.group(2) or 0) if found.group(1) == "1" else int(found.group(1))
    if major < MIN_JAVA:
        raise QAnchorError(f"{java} is Java {major}. {advice}")
    return major


def _with_delta(session: SparkSession) -> SparkSession:
    if DELTA_EXTENSION not in (session.conf.get("spark.sql.extensions", "") or ""):
        raise QAnchorError(
            "A Spark session is already active in this process and knows no Delta: its "
            f"spark.sql.extensions lacks {DELTA_EXTENSION}. Stop it, or start it with "
            "spark_jobs.session.get_session."
        )
    return session


def _delta_jars(conf: Mapping[str, str]) -> dict[str, str]:
    """The jars by path when ivy has fetched them before (saves its resolution), else the package."""
    ivy = Path(conf.get("spark.jars.ivy") or Path.home() / ".ivy2.5.2")
    jars = [ivy / "jars" / name for name in DELTA_JARS]
    key, sep, ours = "spark.jars.packages", ",", DELTA_PACKAGE
    if all(jar.is_file() for jar in jars):
        key, ours = "spark.jars", sep.join(str(jar) for jar in jars)
    given = conf.get(key)
    return {key: ours if not given else given + sep + ours}


def _python_path() -> str:
    """The folder that executors in processes of their own import our packages from."""
    return os.pathsep.join(filter(None, (str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH"))))


@contextlib.contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """Within the block this process's file descriptor 2, which a started JVM inherits, is ``log``."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise QAnchorError(
            f"Spark's log {log} cannot be written ({error.strerror}). Set qanchor: log_folder: to a folder "
            "that can."
        ) from error
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        os.dup2(target, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(target)
