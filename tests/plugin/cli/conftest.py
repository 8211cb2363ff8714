"""The shop lake as a feature repo on disk: files, registry, runs and stored embeddings, all literal."""

import json
import textwrap
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml
from feast import Entity, FeatureStore, ValueType
from feast.inference import update_feature_views_with_inferred_features_and_entities

from qanchor_plugin import schemas as S
from qanchor_plugin.cli.repo import opened
from qanchor_plugin.cli.repo_files import declared_in_files
from qanchor_plugin.feast_ext import anchor_view
from qanchor_plugin.feast_ext.declarations import declarations_from_registry
from tests.qanchor_command import qanchor  # noqa: F401  (a fixture)
from tests.shop import PROFILE, PURCHASES, ShopLake, at, demo_engine, shop_lake, user

DAIRY = "Does this household buy dairy?"
SCENARIO_FILE = f"""
    from datetime import timedelta

    from qanchor_plugin.feast_ext import anchor_view
    from tests.shop import PROFILE

    dairy_buyer = anchor_view(
        name="dairy_buyer", query="{DAIRY}", profile=PROFILE, ttl=timedelta(days=7), owner="shop@example.org"
    )
    wine_buyer = anchor_view(
        name="wine_buyer", query="Will this household buy wine?", profile=PROFILE, ttl=timedelta(days=1)
    )
"""
HOUSEHOLD = Entity(name="household", join_keys=["household_id"], value_type=ValueType.INT64)


def write_repo(folder: Path) -> None:
    """feature_store.yaml and the scenarios' file stand in the folder."""
    (folder / "scenarios").mkdir(parents=True)
    body = {
        "project": "shop",
        "provider": "qanchor_plugin.feast_ext.provider.QAnchorProvider",
        "entity_key_serialization_version": 3,
        "registry": {"path": "registry.db", "enable_online_feature_view_versioning": True},
        "online_store": {"type": "sqlite", "path": "online.db"},
        "offline_store": {"type": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"},
        "qanchor": {"lake": "lake", "clock": "2018-01-01T00:00:00Z", "device": "cpu"},
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(body))
    (folder / "scenarios" / "buyers.py").write_text(textwrap.dedent(SCENARIO_FILE))


def register(folder: Path) -> dict[str, str]:
    """The file's scenarios are in the registry; scenario to identity. No source is read."""
    with opened(folder) as here:
        declared = declared_in_files(here)
        store = FeatureStore(config=here.config)
        assert store.provider is not None
        views = [
            anchor_view(one.name, one.query, PROFILE, one.ttl, owner=one.owner)
            for one in declared.scenarios.values()
        ]
        store.registry.apply_entity(HOUSEHOLD, "shop")
        update_feature_views_with_inferred_features_and_entities(
            store.provider, views, [HOUSEHOLD], store.config
        )
        for view in views:
            store.registry.apply_feature_view(view, "shop")
        registered = declarations_from_registry(store.registry, "shop")
        return {name: registered.scenario_id(one) for name, one in registered.scenarios.items()}


def embedding_row(household_id: int, scenario: str, scenario_id: str) -> dict[str, Any]:
    """One literal row of scenario_embeddings."""
    return {
        S.SCENARIO: scenario,
        S.SCENARIO_ID: scenario_id,
        S.USER: user(household_id),
        S.USER_KEY: f'{{"household_id": {household_id}}}',
        S.USER_BUCKET: 0,
        S.BATCH: "r1",
        S.CUTOFF: at("2017-12-30"),
        S.EMBEDDING_ID: f"{scenario_id[:16]}-{'a' * 16}",
        S.EMBEDDING: [1.0] + [0.0] * 127,
        S.AS_OF: at("2017-12-20"),
        S.NUM_EVENTS: 2,
        S.SERVED_AT: at("2017-12-30"),
    }


def sequences_run(run: str, batch: str, counts: dict[str, int]) -> dict[str, Any]:
    """What a refresh says of the purchases it read."""
    return {
        S.JOB: "sequences",
        S.RUN: run,
        S.STATE: "succeeded",
        S.STARTED_AT: at("2017-12-30"),
        S.ENDED_AT: at("2017-12-30") + 1_500_000,
        S.SOURCE_VERSIONS: json.dumps({PURCHASES.sequence_digest: batch}),
        S.COUNTS: json.dumps({"purchases": counts}),
        S.MESSAGE: "",
    }


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Households 1 to 3 known; dairy_buyer stored for 1, 2 and, otherwise made, 3; wine_buyer never."""
    folder = tmp_path_factory.mktemp("cli") / "shop"
    write_repo(folder)
    lake: ShopLake = shop_lake(folder / "lake", demo_engine())
    identities = register(folder)
    dairy = identities["dairy_buyer"]
    rows = [embedding_row(1, "dairy_buyer", dairy), embedding_row(2, "dairy_buyer", dairy)]
    lake.append("scenario_embeddings", [*rows, embedding_row(3, "dairy_buyer", "0" * 32)])
    lake.complete("dairy_buyer", dairy, "2017-12-30")
    lake.append(
        "job_runs",
        [
            sequences_run("a1", "0123456789ab.0-1", {"rows": 90, "null_user": 50}),
            sequences_run("a2", "0123456789ab.0-2", {"rows": 100, "null_user": 3, "blank_text": 1}),
            sequences_run("a3", "0123456789ab.3-3", {"rows": 10, "null_user": 2, "future_event_at": 4}),
        ],
    )
    return folder


@pytest.fixture
def in_shop(shop: Path) -> Iterator[Path]:
    """The process stands in the shop's folder."""
    with chdir(shop):
        yield shop
