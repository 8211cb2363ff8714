"""The offline store: ordinary Spark views by a corrected as-of join, anchor views by the engine on Spark."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark import (
    SparkOfflineStore,
    SparkOfflineStoreConfig,
)
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from pydantic import field_validator
from pyspark.sql import SparkSession

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.adhoc_history import ADHOC_EMBEDDING, join_adhoc
from qanchor_plugin.feast_ext.anchor_history import join_anchors
from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.feast_ext.declarations import is_anchor, settings_from_config
from qanchor_plugin.feast_ext.entity_rows import check_join_keys, entity_rows
from qanchor_plugin.feast_ext.feature_logging import append_logs
from qanchor_plugin.feast_ext.historical import (
    anchors,
    everyone,
    in_order,
    keys_of,
    metadata_of,
    wanted_of,
    with_ordinary,
)
from qanchor_plugin.feast_ext.offline_write import append_rows
from qanchor_plugin.feast_ext.pull import pull_all, pull_latest
from qanchor_plugin.feast_ext.retrieval_job import QAnchorRetrievalJob
from qanchor_plugin.feast_ext.spark_session import session
from qanchor_plugin.feast_ext.spark_source import read
from qanchor_plugin.feast_ext.validation import validate_source


class QAnchorOfflineStoreConfig(SparkOfflineStoreConfig):
    """``offline_store:`` of feature_store.yaml; Spark itself is configured under ``qanchor:``.

    Attributes:
        point_in_time: ``exact`` computes anchors as of each row; ``as_served`` returns what was stored then.
    """

    type: Literal["qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"] = (
        "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"
    )
    point_in_time: Literal["exact", "as_served"] = "exact"

    @field_validator("spark_conf")
    @classmethod
    def _spark_is_configured_once(cls, given: dict[str, str] | None) -> None:
        if given:
            raise ValueError(
                f"offline_store: spark_conf: {sorted(given)} would not be used: one session serves jobs and "
                "store alike. Move it under 'qanchor: spark_conf:'."
            )


class QAnchorOfflineStore(SparkOfflineStore):
    """Feast's Spark store, with anchor views, and exact where that one is not."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Every entity row with the requested features as of its instant, duplicates kept.

        Args:
            entity_df: a pandas frame, a Spark frame, an SQL text, or None: then every key seen between
                ``start_date`` and ``end_date`` and every known user of an anchor, as of ``end_date``.
            filter_by_created_timestamp: ordinary rows count only once they were written.

        Raises:
            FeastEntityDFMissingColumnsError: a join key is not among the entity rows' columns.
        """
        from spark_jobs.session import in_utc

        settings = settings_from_config(config)
        spark = session(settings)
        wanted = wanted_of(feature_views, feature_refs, registry, project, full_feature_names)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        with in_utc(spark):
            if entity_df is None:
                entity = everyone(spark, settings, wanted, **kwargs)
            else:
                entity = entity_rows(spark, entity_df)
            check_join_keys(entity, keys_of(wanted))
            joined = with_ordinary(spark, entity, wanted, filter_by_created_timestamp)
            default_mode = config.offline_store.point_in_time
            joined = join_anchors(settings, joined, anchors(wanted), default_mode=default_mode)
            joined, hidden = join_adhoc(settings, joined, on_demand, registry, project)
            frame = in_order(joined, [name for names in wanted.values() for name in names.values()], hidden)
        return QAnchorRetrievalJob(
            frame,
            config,
            full_feature_names=full_feature_names,
            on_demand_feature_views=on_demand,
            metadata=metadata_of(feature_refs, entity),
            hidden=hidden,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of every key with start_date <= instant <= end_date.

        Of an anchor source: the newest stored embedding of the declared scenario.
        """
        columns = (join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
        return _pulled(
            config,
            lambda spark, settings: pull_latest(spark, settings, data_source, *columns, start_date, end_date),
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row with start_date <= instant <= end_date; every column when none is named."""
        columns = (join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
        return _pulled(
            config,
            lambda spark, settings: pull_all(spark, settings, data_source, *columns, start_date, end_date),
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The rows stand in the view's source; embeddings are computed and cannot be written by hand.

        Raises:
            DeclarationError: the view is an anchor view, or its source cannot be written.
            InputDataError: the rows' columns are not the source's.
        """
        if is_anchor(feature_view):
            raise DeclarationError(
                f"feature view {feature_view.name!r} is an anchor view: its rows are computed. Run feast "
                "materialize instead of writing them."
            )
        from spark_jobs.session import in_utc

        spark = session(settings_from_config(config))
        with in_utc(spark):
            append_rows(spark, feature_view, table)
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """The logs of served features stand in the service's ``DeltaLoggingDestination``."""
        append_logs(session(settings_from_config(config)), data, logging_config)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """The source can be read; the first call of an apply has checked every anchor view of the repo."""
        spark = session(settings_from_config(config))
        if isinstance(data_source, AnchorSource):
            validate_source(config, data_source)
        elif isinstance(data_source, SparkSource):
            read(spark, data_source)
        else:
            data_source.validate(config=config)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Any:
        """Columns and raw types, as this store reads them."""
        if not isinstance(data_source, SparkSource):
            return data_source.get_table_column_names_and_types(config=config)
        rows = read(session(settings_from_config(config)), data_source)
        return [(field.name, field.dataType.simpleString()) for field in rows.schema]


def _pulled(config: RepoConfig, pull: Callable[[SparkSession, Settings], Any]) -> RetrievalJob:
    from spark_jobs.session import in_utc

    settings = settings_from_config(config)
    spark = session(settings)
    with in_utc(spark):
        return QAnchorRetrievalJob(pull(spark, settings), config)


__all__ = ["ADHOC_EMBEDDING", "QAnchorOfflineStore", "QAnchorOfflineStoreConfig"]
