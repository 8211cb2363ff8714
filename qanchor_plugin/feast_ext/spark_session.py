"""The Spark session as Feast's side asks for it."""

from typing import TYPE_CHECKING, Any

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

    _adopt_running()
    return get_session(settings)


def _adopt_running() -> None:
    """The process's session is this thread's too: a server's threads have none of their own, and starting
    one anew would set the running session's configuration back."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if SparkContext._active_spark_context is None or SparkSession.getActiveSession() is not None:
        return
    running = SparkSession.builder.getOrCreate()
    jvm: Any = running._jvm
    jvm.SparkSession.setActiveSession(running._jsparkSession)
