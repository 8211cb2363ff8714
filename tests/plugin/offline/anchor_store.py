"""The store that the tests of anchors' history share: its configuration."""

from pathlib import Path
from typing import Any

from feast import FeatureStore
from feast.repo_config import RepoConfig

from tests.plugin.conftest import CLOCK


def store_body(base: Path) -> dict[str, Any]:
    """feature_store.yaml as a mapping."""
    return {
        "project": "shop",
        "provider": "qanchor_plugin.feast_ext.provider.QAnchorProvider",
        "registry": {
            "path": str(base / "registry.db"),
            "cache_ttl_seconds": 0,
            "enable_online_feature_view_versioning": True,
        },
        "online_store": {"type": "sqlite", "path": str(base / "online.db")},
        "offline_store": {"type": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"},
        "batch_engine": {"type": "qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine"},
        "entity_key_serialization_version": 3,
        "qanchor": {"lake": "lake", "clock": CLOCK.isoformat(), "device": "cpu"},
    }


def open_store(base: Path, **offline: Any) -> FeatureStore:
    """The store of ``base``, with further settings of its offline store."""
    body = store_body(base)
    body["offline_store"] |= offline
    return FeatureStore(config=RepoConfig(repo_path=base, **body))
