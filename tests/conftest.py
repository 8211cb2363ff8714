"""Fixtures shared by every folder of tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.spark.quick import QUICK

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SparkSession]":
    """The one Spark session of the test run: two cores, Delta, UTC."""
    from qanchor_plugin.declare import Settings
    from spark_jobs.session import get_session

    base: Path = tmp_path_factory.mktemp("spark")
    session = get_session(
        Settings(
            lake=str(base / "lake"),
            log_folder=str(base / "logs"),
            spark_master="local[2]",
            spark_conf=QUICK | {"spark.sql.warehouse.dir": str(base / "warehouse")},
        )
    )
    yield session
    session.stop()
