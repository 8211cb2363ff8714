"""Historical answers to queries that nobody registered, computed before Feast runs the on-demand function."""

from collections.abc import Sequence

from feast import OnDemandFeatureView
from feast.infra.registry.base_registry import BaseRegistry

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import DeclarationError, InputDataError
from qanchor_plugin.feast_ext.anchor_history import with_adhoc
from qanchor_plugin.feast_ext.declarations import declarations_from_registry
from qanchor_plugin.feast_ext.entity_rows import EntityRows, check_join_keys
from qanchor_plugin.feast_ext.on_demand import ADHOC_EMBEDDING, QUERY_FIELD
from qanchor_plugin.feast_ext.tags import ADHOC_PROFILE


def join_adhoc(
    settings: Settings,
    entity: EntityRows,
    views: Sequence[OnDemandFeatureView],
    registry: BaseRegistry,
    project: str,
) -> tuple[EntityRows, tuple[str, ...]]:
    """The rows with each row's own query answered as of its instant, and the column that holds it.

    Raises:
        DeclarationError: the views are of two profiles, or of one that no scenario declares.
        InputDataError: the entity rows have no query column.
    """
    names = {view.tags[ADHOC_PROFILE] for view in views if ADHOC_PROFILE in view.tags}
    if not names:
        return entity, ()
    profiles = declarations_from_registry(registry, project).profiles
    if len(names) > 1 or not names <= set(profiles):
        raise DeclarationError(
            f"on-demand views of profiles {sorted(names)} were asked in one call; accepted is one profile of "
            f"{sorted(profiles)}. Ask for one on-demand view a call."
        )
    if QUERY_FIELD not in entity.columns:
        raise InputDataError(
            f"entity rows have no column {QUERY_FIELD!r}; it holds each row's question. Add it as text."
        )
    profile = profiles[names.pop()]
    check_join_keys(entity, profile.join_keys)
    answered = with_adhoc(settings, entity, profile, query_column=QUERY_FIELD, output=ADHOC_EMBEDDING)
    return answered, (ADHOC_EMBEDDING,)
