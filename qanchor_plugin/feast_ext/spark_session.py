"""The Spark session as Feast's side asks for it."""

from typing import TYPE_CHECKING

from qanchor_plugin.declare import Settings
from qanchor_plugin.extras import require

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def session(settings: Settings) -> "SparkSession":
    """The process's session with Delta, in UTC; Feast's own Spark code then finds it as the active one.

    Raises:
        MissingExtraError: pyspark or delta-spark is not installed.
        QAnchorError: no Java, or a session that knows no Delta.
    """
    require("pyspark", purpose="reading behaviour sources")
    require("delta", purpose="reading behaviour sources")
    from spark_jobs.session import get_session

    return get_session(settings)
