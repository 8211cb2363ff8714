"""From Feast's registry and configuration to the plain records that jobs and workers are handed."""

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from feast import FeatureView
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig

from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.anchor_source import AnchorSource


def is_anchor(view: Any) -> bool:
    """Whether a Feast object is a feature view declared by ``anchor_view``."""
    return isinstance(view, FeatureView) and isinstance(view.batch_source, AnchorSource)


def declarations_of(project: str, views: Iterable[Any]) -> Declarations:
    """The record of the anchor views among ``views``; other objects are passed over.

    Raises:
        DeclarationError: two bodies for one profile name, or a scenario declared twice.
    """
    sources = [view.batch_source for view in views if is_anchor(view)]
    return Declarations.of(
        project, [source.profile for source in sources], [source.scenario for source in sources]
    )


def declarations_from_registry(
    registry: BaseRegistry, project: str, *, allow_cache: bool = True
) -> Declarations:
    """Everything declared in a registry: the only truth about scenarios.

    Engines were frozen at apply, so every scenario carries its engine's digest.

    Raises:
        DeclarationError: two bodies for one profile name.
    """
    views = registry.list_feature_views(project, allow_cache=allow_cache)
    return declarations_of(project, views)


def pending_declarations(registry: BaseRegistry, project: str) -> Declarations:
    """The scenarios' newest versions, of those that have one newer than the version that is served.

    ``feast apply --no-promote`` makes such versions.

    Raises:
        DeclarationError: two bodies for one profile name, or a registry that does not tell versions.
    """
    waiting = [
        _newer_version(registry, project, view)
        for view in registry.list_feature_views(project, allow_cache=False)
    ]
    return declarations_of(project, [view for view in waiting if view is not None])


def _newer_version(registry: BaseRegistry, project: str, view: FeatureView) -> Any:
    if not is_anchor(view):
        return None
    try:
        versions = registry.list_feature_view_versions(view.name, project)
    except NotImplementedError as error:
        raise DeclarationError(
            f"this registry ({type(registry).__name__}) does not tell versions of {view.name!r}. Run this "
            "where feature_store.yaml names the registry itself: a file or a database, not a remote server."
        ) from error
    newest = max((one["version_number"] for one in versions), default=0)
    if newest <= (view.current_version_number or 0):
        return None
    return registry.get_feature_view_by_version(view.name, project, newest)


def settings_from_config(config: RepoConfig) -> Settings:
    """The ``qanchor:`` section as settings; the same section gives the same object.

    Raises:
        DeclarationError: no section, no lake, or an unknown or unusable key.
    """
    section = (config.model_extra or {}).get("qanchor")
    repo_path = Path(config.repo_path) if config.repo_path else Path.cwd()
    return _settings(json.dumps(section, sort_keys=True, default=str), str(repo_path))


@functools.lru_cache(maxsize=32)
def _settings(section: str, repo_path: str) -> Settings:
    return Settings.from_mapping(json.loads(section), repo_path=Path(repo_path))
