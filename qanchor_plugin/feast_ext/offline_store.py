"""The offline store: ordinary Spark views by a corrected as-of join, anchor views by the engine on Spark."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark import (
    SparkOfflineStore,
    SparkOfflineStoreConfig,
)
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig
from feast.utils import _get_requested_feature_views_to_features_dict, make_tzaware
from pydantic import field_validator
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.adhoc_history import ADHOC_EMBEDDING, join_adhoc
from qanchor_plugin.feast_ext.anchor_history import AnchorRequest, join_anchors, known_users
from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.feast_ext.asof_join import join_as_of, quoted
from qanchor_plugin.feast_ext.declarations import is_anchor, settings_from_config
from qanchor_plugin.feast_ext.entity_rows import ROW, EntityRows, check_join_keys, distinct_keys, entity_rows
from qanchor_plugin.feast_ext.ordinary_views import all_join_keys, history_of, join_keys, keys_between
from qanchor_plugin.feast_ext.pull import pull_all, pull_latest
from qanchor_plugin.feast_ext.retrieval_job import QAnchorRetrievalJob
from qanchor_plugin.feast_ext.spark_session import session
from qanchor_plugin.feast_ext.validation import validate_source

_DEFAULT_RANGE = timedelta(days=30)


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
        wanted = _wanted(feature_views, feature_refs, registry, project, full_feature_names)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        with in_utc(spark):
            if entity_df is None:
                entity = _everyone(spark, settings, wanted, **kwargs)
            else:
                entity = entity_rows(spark, entity_df)
            check_join_keys(entity, _keys_of(wanted))
            joined = _with_ordinary(spark, entity, wanted, filter_by_created_timestamp)
            default_mode = config.offline_store.point_in_time
            joined = join_anchors(settings, joined, _anchors(wanted), default_mode=default_mode)
            joined, hidden = join_adhoc(settings, joined, on_demand, registry, project)
            frame = _in_order(joined, [name for names in wanted.values() for name in names.values()], hidden)
        return QAnchorRetrievalJob(
            frame,
            config,
            full_feature_names=full_feature_names,
            on_demand_feature_views=on_demand,
            metadata=_metadata(feature_refs, entity),
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
        """As Feast's Spark store; embeddings are computed and cannot be written by hand.

        Raises:
            DeclarationError: the view is an anchor view.
        """
        if is_anchor(feature_view):
            raise DeclarationError(
                f"feature view {feature_view.name!r} is an anchor view: its rows are computed. Run feast "
                "materialize instead of writing them."
            )
        session(settings_from_config(config))
        SparkOfflineStore.offline_write_batch(config, feature_view, table, progress)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """The source can be read; the first call of an apply has checked every anchor view of the repo."""
        session(settings_from_config(config))
        if isinstance(data_source, AnchorSource):
            validate_source(config, data_source)
        else:
            data_source.validate(config=config)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Any:
        """Columns and raw types; Feast's Spark source finds our session instead of starting its own."""
        if not isinstance(data_source, AnchorSource):
            session(settings_from_config(config))
        return data_source.get_table_column_names_and_types(config=config)


_Wanted = dict[FeatureView, dict[str, str]]


def _wanted(
    views: Sequence[FeatureView], refs: list[str], registry: BaseRegistry, project: str, full_names: bool
) -> _Wanted:
    """Each view with its requested features and the columns they become."""
    on_demand = OnDemandFeatureView.get_requested_odfvs(refs, project, registry)
    by_view, _ = _get_requested_feature_views_to_features_dict(refs, list(views), on_demand)
    return {
        view: {
            feature: f"{view.projection.name_to_use()}__{feature}" if full_names else feature
            for feature in features
        }
        for view, features in by_view.items()
    }


def _anchors(wanted: _Wanted) -> list[AnchorRequest]:
    return [AnchorRequest(view=view, features=names) for view, names in wanted.items() if is_anchor(view)]


def _ordinary(wanted: _Wanted) -> list[FeatureView]:
    return [view for view in wanted if not is_anchor(view)]


def _keys_of(wanted: _Wanted) -> list[str]:
    anchors = [name for request in _anchors(wanted) for _, name in request.columns_of_keys()]
    return list(dict.fromkeys([*anchors, *all_join_keys(_ordinary(wanted))]))


def _with_ordinary(spark: SparkSession, entity: EntityRows, wanted: _Wanted, known_only: bool) -> EntityRows:
    rows = entity.rows
    for view in _ordinary(wanted):
        history = history_of(spark, view, wanted[view], entity)
        rows = join_as_of(rows, history, at=entity.at, known_only=known_only)
    return replace(entity, rows=rows)


def _everyone(
    spark: SparkSession,
    settings: Settings,
    wanted: _Wanted,
    start_date: datetime | None = None,
    end_date: datetime | None = None,
) -> EntityRows:
    """Every key of the ordinary views in the range and every known user of the anchors, as of the end."""
    end = settings.now() if end_date is None else make_tzaware(end_date)
    longest = max((view.ttl for view in _ordinary(wanted) if view.ttl), default=_DEFAULT_RANGE)
    start = end - longest if start_date is None else make_tzaware(start_date)
    frames = [keys_between(spark, view, start, end) for view in _ordinary(wanted) if join_keys(view)]
    frames += [known_users(settings, spark.range(0), request) for request in _anchors(wanted)]
    if not frames:
        raise DeclarationError(
            "no entity rows were given and none of the requested views has an entity. Give entity_df."
        )
    return distinct_keys(frames, _keys_of(wanted), end)


def _in_order(entity: EntityRows, features: Sequence[str], hidden: Sequence[str]) -> Any:
    rows = entity.rows.orderBy(F.col(ROW)) if entity.ordered else entity.rows
    return rows.select(*[quoted(name) for name in (*entity.columns, *features, *hidden)])


def _metadata(refs: list[str], entity: EntityRows) -> RetrievalMetadata:
    keys = [name for name in entity.columns if name != entity.at]
    return RetrievalMetadata(
        features=refs, keys=keys, min_event_timestamp=entity.first, max_event_timestamp=entity.last
    )


def _pulled(config: RepoConfig, pull: Callable[[SparkSession, Settings], Any]) -> RetrievalJob:
    from spark_jobs.session import in_utc

    settings = settings_from_config(config)
    spark = session(settings)
    with in_utc(spark):
        return QAnchorRetrievalJob(pull(spark, settings), config)


__all__ = ["ADHOC_EMBEDDING", "QAnchorOfflineStore", "QAnchorOfflineStoreConfig"]
