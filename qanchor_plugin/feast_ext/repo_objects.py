"""What a feature repo declares, read from the modules that Feast has just imported.

Feast shows a provider one data source at a time; whoever must see all of them looks where Feast looked.
"""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feast import FeatureService, FeatureView
from feast.repo_config import RepoConfig
from feast.repo_operations import read_feastignore

from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.feast_ext.declarations import is_anchor


def repo_objects(config: RepoConfig) -> tuple[list[AnchorSource], list[FeatureService]]:
    """Sources of all anchor views, and all services, at the top level of the repo's imported modules."""
    sources: dict[int, AnchorSource] = {}
    services: dict[int, FeatureService] = {}
    for one in _top_level(config):
        if is_anchor(one):
            sources[id(one.batch_source)] = one.batch_source
        elif isinstance(one, FeatureService):
            services[id(one)] = one
    return list(sources.values()), list(services.values())


def repo_views(config: RepoConfig) -> list[FeatureView]:
    """All feature views at the top level of the repo's imported modules."""
    return list({id(one): one for one in _top_level(config) if isinstance(one, FeatureView)}.values())


def _top_level(config: RepoConfig) -> Iterator[Any]:
    """Top-level values of imported modules under the repo's folder that .feastignore does not name."""
    if not config.repo_path:
        return
    root = Path(config.repo_path).resolve()
    ignored = {found.resolve() for pattern in read_feastignore(root) for found in root.glob(pattern)}
    for module in list(sys.modules.values()):
        where = getattr(module, "__file__", None)
        if not where:
            continue
        path = _resolved(where)
        if root in path.parents and ignored.isdisjoint((path, *path.parents)):
            yield from list(vars(module).values())


@functools.cache
def _resolved(path: str) -> Path:
    return Path(path).resolve()
