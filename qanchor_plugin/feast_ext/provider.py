"""The provider: Feast's own, with anchor views answered online and declarations checked before writes."""

import asyncio
import copy
import logging
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

from feast import FeatureService, FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.passthrough_provider import PassthroughProvider

from qanchor_plugin.backend import Backend, LakeReader, backend_of
from qanchor_plugin.declare import Settings
from qanchor_plugin.feast_ext import on_demand
from qanchor_plugin.feast_ext.declarations import is_anchor, settings_from_config
from qanchor_plugin.feast_ext.engine_freeze import store_opened
from qanchor_plugin.feast_ext.miss_rate import RateLimitedMisses
from qanchor_plugin.feast_ext.online_misses import MissAnswerer
from qanchor_plugin.feast_ext.online_read import AnchorReader, reading_anchors
from qanchor_plugin.feast_ext.online_write import OnlineWriter, naming_the_store
from qanchor_plugin.feast_ext.push_checks import check_push_views
from qanchor_plugin.feast_ext.push_offline import append_to_source
from qanchor_plugin.feast_ext.push_policy import PushPolicy
from qanchor_plugin.feast_ext.push_rows import pushed_rows
from qanchor_plugin.feast_ext.push_view import PushedSource, is_push_view
from qanchor_plugin.feast_ext.tags import ADHOC_PROFILE
from qanchor_plugin.feast_ext.waiting import in_waiting_thread
from qanchor_plugin.feast_ext.write_back import WriteBack
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.prefix_store.lake_state import lake_state
from qanchor_plugin.prefix_store.pushed import shared_pushed

logger = logging.getLogger(__name__)


class QAnchorProvider(PassthroughProvider):
    """``provider: qanchor_plugin.feast_ext.provider.QAnchorProvider`` in feature_store.yaml."""

    def __init__(self, config: RepoConfig) -> None:
        super().__init__(config)
        self.settings: Settings = settings_from_config(config)
        self._anchor_store: OnlineStore | None = None
        store_opened(self.settings)

    @cached_property
    def tables(self) -> LakeTables:
        """The lake, as this process reads it."""
        return LakeTables(self.settings.lake)

    @cached_property
    def lake_reader(self) -> LakeReader:
        """Watermarks and histories."""
        return LakeReader(self.tables)

    @cached_property
    def backend(self) -> Backend:
        """Who computes, by configuration; nothing is loaded before the first miss."""
        return backend_of(self.settings, tables=self.tables)

    @cached_property
    def misses(self) -> MissAnswerer:
        """The backend behind its budget; shared by reads and on-demand views."""
        return MissAnswerer(
            self.backend,
            max_compute_ms=self.settings.max_compute_ms,
            lake_state=lambda: lake_state(self.settings.lake),
        )

    @cached_property
    def pushes(self) -> PushPolicy:
        """What has been pushed, against what is stored."""
        return PushPolicy(shared_pushed(self.settings.lake))

    @cached_property
    def write_back(self) -> WriteBack:
        """Computed answers on their way to the stores."""
        return WriteBack(self._background_writer, self.lake_reader, self.settings.now)

    @property
    def online_store(self) -> Any:  # type: ignore[override]  # Feast gives its property no type
        """The configured online store, its reads answering anchor views; None when there is none."""
        if self._anchor_store is None and self.repo_config.online_store is not None:
            misses = RateLimitedMisses(self.misses, per_second=self.settings.max_misses_per_second)
            reader = AnchorReader(self.settings, self.lake_reader, misses, self.write_back, self.pushes)
            store = get_online_store_from_config(self.repo_config.online_store)
            self._anchor_store = reading_anchors(store, reader)
        return self._anchor_store

    def _background_writer(self) -> OnlineWriter:
        """A store object, so a connection, of the background thread's own."""
        return OnlineWriter(self.repo_config, get_online_store_from_config(self.repo_config.online_store))

    # --- online -------------------------------------------------------------------------------
    def get_online_features(self, config: RepoConfig, *args: Any, **kwargs: Any) -> Any:
        """As Feast's; on-demand views of the request reach this provider's backend."""
        asker = self._asker(args, kwargs)
        with on_demand.answering_with(asker):
            return super().get_online_features(config, *args, **kwargs)

    async def get_online_features_async(self, config: RepoConfig, *args: Any, **kwargs: Any) -> Any:
        """As Feast's; with an ad-hoc view the request runs in a thread, for Feast calls such views
        synchronously and they compute."""
        asker = self._asker(args, kwargs)
        with on_demand.answering_with(asker):
            answer = partial(super().get_online_features, config, *args, **kwargs)
            if self._asks_adhoc(*_features_registry_project(args, kwargs)):
                return await in_waiting_thread(answer)
            return await super().get_online_features_async(config, *args, **kwargs)

    def _asker(self, args: Sequence[Any], kwargs: dict[str, Any]) -> on_demand.AdhocAsker:
        _, registry, project = _features_registry_project(args, kwargs)
        return on_demand.AdhocAsker(self.settings, lambda: self.misses, registry, project)

    def _asks_adhoc(self, features: Any, registry: Any, project: str) -> bool:
        if isinstance(features, FeatureService):
            names = {projection.name for projection in features.feature_view_projections}
        else:
            names = {ref.split(":")[0].split("@")[0] for ref in features}
        views = registry.list_on_demand_feature_views(project, allow_cache=True)
        return any(view.name in names and ADHOC_PROFILE in view.tags for view in views)

    # --- pushed events ------------------------------------------------------------------------
    def ingest_df(self, feature_view: Any, df: Any, field_mapping: dict[str, str] | None = None) -> None:
        """As Feast's; rows of a push view are events, which the next read of their users sees.

        Raises:
            PushError: naming bad rows; nothing was kept. LakeError: the lake cannot be written.
        """
        if not is_push_view(feature_view):
            super().ingest_df(feature_view, df, field_mapping)
            return
        rows = pushed_rows(feature_view.batch_source, df, now=self.settings.now())
        shared_pushed(self.settings.lake).append(rows)

    async def ingest_df_async(
        self, feature_view: Any, df: Any, field_mapping: dict[str, str] | None = None
    ) -> None:
        """The same; the lake is written in a thread."""
        if is_push_view(feature_view):
            await asyncio.to_thread(self.ingest_df, feature_view, df, field_mapping)
        else:
            await super().ingest_df_async(feature_view, df, field_mapping)

    def ingest_df_to_offline_store(self, feature_view: Any, table: Any) -> None:
        """As Feast's; rows of a push view are appended to their behaviour source.

        Raises:
            PushError: naming bad rows. DeclarationError: the source is no Delta folder. LakeError.
        """
        if is_push_view(feature_view):
            append_to_source(feature_view.batch_source, table, now=self.settings.now())
        else:
            super().ingest_df_to_offline_store(feature_view, table)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Any:
        """As Feast's; a push view's own source answers without Spark."""
        if isinstance(data_source, PushedSource):
            return data_source.get_table_column_names_and_types(config)
        return super().get_table_column_names_and_types_from_data_source(config, data_source)

    # --- apply --------------------------------------------------------------------------------
    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """The first call of an apply or plan has checked every declared view of the repo.

        Raises:
            DeclarationError: all faults in one message.
        """
        from qanchor_plugin.feast_ext import validation  # checks read the sources; Spark is an extra

        validation.validate_or_raise(config, data_source)
        super().validate_data_source(config, data_source)

    def update_infra(
        self,
        project: str,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """The online store has the tables it needs, and none of removed views, in any version.

        Raises:
            DeclarationError: a declared view cannot be served; ``FeatureStore.apply`` checks nothing before.
            OnlineStoreError: the online store is down.
        """
        from qanchor_plugin.feast_ext import validation

        validation.validate_kept_views(self.repo_config, tables_to_keep)
        check_push_views(tables_to_keep)
        removed = [version for view in tables_to_delete for version in _versions(view, self.repo_config)]
        with naming_the_store(self.repo_config):
            super().update_infra(
                project, removed, tables_to_keep, entities_to_delete, entities_to_keep, partial
            )

    async def close(self) -> None:
        """Computed answers are written, and connections to the store and to workers closed."""
        for name in ("pushes", "misses", "write_back"):
            if name in self.__dict__:  # cached: what nobody used is not made to be closed
                await asyncio.to_thread(getattr(self, name).close)
        await super().close()


def _features_registry_project(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any, str]:
    """Of a call ``(config, features, entity_rows, registry, project, ...)`` with ``config`` taken off."""
    named = dict(zip(("features", "entity_rows", "registry", "project"), args, strict=False)) | kwargs
    return named["features"], named["registry"], named["project"]


def _versions(view: Any, config: RepoConfig) -> list[Any]:
    """A removed anchor view in every version that may have rows online: Feast names only the newest."""
    newest = getattr(view, "current_version_number", None)
    if not isinstance(view, FeatureView) or not is_anchor(view) or not newest:
        return [view]
    if not config.registry.enable_online_feature_view_versioning:
        return [view]
    found = []
    for number in range(newest + 1):
        one = copy.copy(view)
        one.projection = copy.copy(view.projection)
        one.projection.version_tag = number
        found.append(one)
    return found
