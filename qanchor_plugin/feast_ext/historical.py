"""The parts of one historical call: what is wanted, of whom, joined view by view."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from feast import FeatureView, OnDemandFeatureView
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.utils import _get_requested_feature_views_to_features_dict, make_tzaware
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.anchor_history import AnchorRequest, known_users
from qanchor_plugin.feast_ext.asof_join import MOST_KEYS_SENT, join_as_of, quoted
from qanchor_plugin.feast_ext.declarations import is_anchor
from qanchor_plugin.feast_ext.entity_rows import ROW, EntityRows, distinct_keys
from qanchor_plugin.feast_ext.ordinary_views import all_join_keys, history_of, join_keys, keys_between

_DEFAULT_RANGE = timedelta(days=30)

Wanted = dict[FeatureView, dict[str, str]]
"""Of each view: feature -> column in the answer."""


def wanted_of(
    views: Sequence[FeatureView], refs: list[str], registry: BaseRegistry, project: str, full_names: bool
) -> Wanted:
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


def anchors(wanted: Wanted) -> list[AnchorRequest]:
    """The anchor views among them."""
    return [AnchorRequest(view=view, features=names) for view, names in wanted.items() if is_anchor(view)]


def _ordinary(wanted: Wanted) -> list[FeatureView]:
    return [view for view in wanted if not is_anchor(view)]


def keys_of(wanted: Wanted) -> list[str]:
    """Every column that entity rows must have, in order."""
    of_anchors = [name for request in anchors(wanted) for _, name in request.columns_of_keys()]
    return list(dict.fromkeys([*of_anchors, *all_join_keys(_ordinary(wanted))]))


def with_ordinary(spark: SparkSession, entity: EntityRows, wanted: Wanted, known_only: bool) -> EntityRows:
    """The rows with the features of every ordinary view beside them."""
    rows = entity.rows
    asked_by = entity.asked if entity.num_rows <= MOST_KEYS_SENT else None
    for view in _ordinary(wanted):
        history = history_of(spark, view, wanted[view], entity)
        rows = join_as_of(rows, history, at=entity.at, known_only=known_only, asked_by=asked_by)
    return replace(entity, rows=rows)


def everyone(
    spark: SparkSession,
    settings: Settings,
    wanted: Wanted,
    start_date: datetime | None = None,
    end_date: datetime | None = None,
) -> EntityRows:
    """Every key of the ordinary views in the range and every known user of the anchors, as of the end."""
    end = settings.now() if end_date is None else make_tzaware(end_date)
    longest = max((view.ttl for view in _ordinary(wanted) if view.ttl), default=_DEFAULT_RANGE)
    start = end - longest if start_date is None else make_tzaware(start_date)
    frames = [keys_between(spark, view, start, end) for view in _ordinary(wanted) if join_keys(view)]
    frames += [known_users(settings, spark.range(0), request) for request in anchors(wanted)]
    if not frames:
        raise DeclarationError(
            "no entity rows were given and none of the requested views has an entity. Give entity_df."
        )
    return distinct_keys(frames, keys_of(wanted), end)


def in_order(entity: EntityRows, features: Sequence[str], hidden: Sequence[str]) -> Any:
    """The caller's columns, then the features, then what only on-demand views read; in the caller's order."""
    rows = entity.rows.orderBy(F.col(ROW)) if entity.ordered else entity.rows
    return rows.select(*[quoted(name) for name in (*entity.columns, *features, *hidden)])


def metadata_of(refs: list[str], entity: EntityRows) -> RetrievalMetadata:
    """What Feast tells of a retrieval before it ran."""
    keys = [name for name in entity.columns if name != entity.at]
    return RetrievalMetadata(
        features=refs, keys=keys, min_event_timestamp=entity.first, max_event_timestamp=entity.last
    )
