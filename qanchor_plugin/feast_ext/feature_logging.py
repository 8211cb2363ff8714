"""Where served features are logged: a Delta table beside the lake's own."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.feature_logging import LOG_DATE_FIELD, LOG_TIMESTAMP_FIELD, LoggingConfig, LoggingDestination
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.protos.feast.core.FeatureService_pb2 import LoggingConfig as LoggingConfigProto
from feast.table_format import DeltaFormat
from pyspark.sql import SparkSession

from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.offline_write import spark_readable
from spark_jobs.failures import named_failures


class DeltaLoggingDestination(LoggingDestination):
    """A Delta table at ``path``, partitioned by day; made with the first batch of logs.

    Use as ``FeatureService(logging_config=LoggingConfig(destination=DeltaLoggingDestination(path=...)))``.
    """

    _proto_kind = "qanchor_plugin.feast_ext.feature_logging.DeltaLoggingDestination"

    def __init__(self, *, path: str) -> None:
        self.path = path

    @classmethod
    def from_proto(cls, config_proto: LoggingConfigProto) -> "DeltaLoggingDestination":
        """The destination as the registry holds it."""
        return cls(path=config_proto.custom_destination.config["path"])

    def to_proto(self) -> LoggingConfigProto:
        """What the registry holds."""
        body = LoggingConfigProto.CustomDestination(kind=self._proto_kind, config={"path": self.path})
        return LoggingConfigProto(custom_destination=body)

    def to_data_source(self) -> DataSource:
        """The logs as a source."""
        return SparkSource(
            name=f"logs at {self.path}",
            path=self.path,
            table_format=DeltaFormat(),
            timestamp_field=LOG_TIMESTAMP_FIELD,
        )


def append_logs(spark: SparkSession, logs: pa.Table | Path, config: LoggingConfig) -> None:
    """The logs stand in the destination, in one commit.

    Args:
        logs: a table, or a folder of the parquet files that a feature server left.

    Raises:
        DeclarationError: another destination than ours.
    """
    destination = config.destination
    if not isinstance(destination, DeltaLoggingDestination):
        raise DeclarationError(
            f"features are logged to a {type(destination).__name__}; this store writes "
            "DeltaLoggingDestination(path=...), from qanchor_plugin.feast_ext.feature_logging."
        )
    table = pq.read_table(logs) if isinstance(logs, Path) else logs
    rows = spark.createDataFrame(spark_readable(table))
    with named_failures(destination.path):
        writer = rows.write.format("delta").mode("append").partitionBy(LOG_DATE_FIELD)
        writer.save(destination.path)
