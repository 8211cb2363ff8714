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
