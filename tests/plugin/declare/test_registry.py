"""Declarations through Feast's registries and back."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from feast import FeatureStore, FeatureView
from feast.diff.property_diff import TransitionType
from feast.infra.registry.base_registry import BaseRegistry
from feast.infra.registry.remote import RemoteRegistry
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_contents import RepoContents

from qanchor_plugin.declare import Modality, Profile, SourceSpec
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext import AnchorSource, anchor_view
from qanchor_plugin.feast_ext.anchor_source import FIELD_TYPES
from qanchor_plugin.feast_ext.declarations import (
    declarations_from_registry,
    pending_declarations,
    settings_from_config,
)
from qanchor_plugin.feast_ext.engine_facts import engine_facts
from tests.plugin.conftest import QUERY, StoreMaker, cheese_view, journey, purchases_source, shopper

REGISTRIES = ("file", "sql")


def num_versions(registry: BaseRegistry, name: str) -> int:
    return len(registry.list_feature_view_versions(name, "shop"))


def contents(*views: FeatureView) -> RepoContents:
    return RepoContents(
        projects=[],
        data_sources=[view.batch_source for view in views],
        feature_views=list(views),
        on_demand_feature_views=[],
        stream_feature_views=[],
        label_views=[],
        entities=[shopper()],
        feature_services=[],
        permissions=[],
    )


def test_two_imports_of_a_repo_give_the_same_source_and_its_bytes_round_trip() -> None:
    one, two = (cheese_view(Path("raw/purchases")).batch_source for _ in range(2))
    assert one == two
    assert one.to_json() == two.to_json()
    back = AnchorSource.from_proto(DataSourceProto.FromString(one.to_proto().SerializeToString()))
    assert back == one
    assert back.scenario == one.scenario
    assert back.profile == one.profile
    other = cheese_view(Path("raw/purchases"), query="Will they buy wine?").batch_source
    assert other != one
    assert one != purchases_source(Path("raw/purchases"))


def test_the_view_has_the_fields_of_the_contract_and_vector_metadata() -> None:
    view = cheese_view(Path("raw"), owner="crm", tags={"team": "crm", "qanchor.mode": "as_served"})
    assert {field.name: field.dtype for field in view.features} == FIELD_TYPES
    embedding = view.features[0]
    assert (embedding.vector_index, embedding.vector_length, embedding.vector_search_metric) == (
        True,
        128,
        "cosine",
    )
    assert embedding.tags["qanchor.query"] == QUERY
    assert embedding.tags["qanchor.profile_digest"] == journey(Path("raw")).digest
    assert view.tags["team"] == "crm"
    assert view.tags["qanchor.mode"] == "as_served"
    assert view.batch_source.scenario.mode == "as_served"
    assert [column.name for column in view.entity_columns] == ["user_id"]
    assert view.batch_source.timestamp_field == "event_timestamp"


def test_what_is_wrong_without_reading_is_said_where_it_is_written() -> None:
    with pytest.raises(DeclarationError, match="give the Profile object itself"):
        anchor_view("a", QUERY, "journey")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match=r"\['qanchor.query'\] are written by qanchor"):
        cheese_view(Path("raw"), tags={"qanchor.query": "mine"})
    with pytest.raises(DeclarationError, match="the query is empty"):
        cheese_view(Path("raw"), query=" ")
    with pytest.raises(DeclarationError, match="is not usable"):
        cheese_view(Path("raw"), name="cheese@v1")


@pytest.mark.spark
@pytest.mark.parametrize("registry", REGISTRIES)
def test_declarations_come_back_from_the_registry_with_the_engine_frozen(
    registry: str, make_store: StoreMaker, purchases_folder: Path
) -> None:
    make_store(registry).apply([shopper(), cheese_view(purchases_folder)])
    fresh: FeatureStore = make_store(registry)
    declared = declarations_from_registry(fresh.registry, "shop")
    scenario = declared.scenarios["cheese"]
    assert scenario.engine == "demo"
    assert scenario.engine_digest == engine_facts("demo", "cpu").digest
    assert scenario.query == QUERY
    assert scenario.ttl == timedelta(days=7)
    assert declared.profiles["journey"] == journey(purchases_folder)
    assert len(declared.scenario_id(scenario)) == 32
    view = fresh.get_feature_view("cheese")
    tags = next(field.tags for field in view.features if field.name == "embedding")
    assert tags["qanchor.engine_digest"] == scenario.engine_digest
    assert view.tags["qanchor.engine"] == "demo"
    assert settings_from_config(fresh.config) is settings_from_config(fresh.config)


@pytest.mark.spark
@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_changed_query_is_a_new_version_and_the_same_one_is_not(
    registry: str, make_store: StoreMaker, purchases_folder: Path
) -> None:
    store = make_store(registry)
    store.apply([shopper(), cheese_view(purchases_folder)])
    before = num_versions(store.registry, "cheese")
    again = make_store(registry)
    diff, _, _ = again.plan(contents(cheese_view(purchases_folder)))
    changed = [
        one.name
        for one in diff.feast_object_diffs
        if one.transition_type != TransitionType.UNCHANGED
        and one.name in ("cheese", "qanchor_cheese", "shopper")
    ]
    assert changed == []
    again.apply([shopper(), cheese_view(purchases_folder)])
    assert num_versions(again.registry, "cheese") == before
    again.apply([shopper(), cheese_view(purchases_folder, query="Will they buy wine?")])
    assert num_versions(again.registry, "cheese") == before + 1
    assert (
        declarations_from_registry(again.registry, "shop").scenarios["cheese"].query == "Will they buy wine?"
    )


@pytest.mark.spark
def test_a_registry_that_tells_no_versions_is_not_taken_for_one_where_none_waits(
    make_store: StoreMaker, purchases_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    store.apply([shopper(), cheese_view(purchases_folder)])
    monkeypatch.setattr(
        type(store.registry), "list_feature_view_versions", RemoteRegistry.list_feature_view_versions
    )
    with pytest.raises(DeclarationError, match="a file or a database, not a remote server"):
        pending_declarations(store.registry, "shop")


@pytest.mark.spark
def test_a_changed_profile_is_a_new_version(make_store: StoreMaker, purchases_folder: Path) -> None:
    store = make_store()
    store.apply([shopper(), cheese_view(purchases_folder)])
    before = num_versions(store.registry, "cheese")
    wider = journey(purchases_folder, window=timedelta(days=365))
    store.apply([shopper(), cheese_view(purchases_folder, profile=wider)])
    assert num_versions(store.registry, "cheese") == before + 1


@pytest.mark.spark
@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_removed_scenario_is_gone_from_the_declarations(
    registry: str, make_store: StoreMaker, purchases_folder: Path
) -> None:
    store = make_store(registry)
    cheese = cheese_view(purchases_folder)
    wine = cheese_view(purchases_folder, name="wine", query="Will they buy wine?")
    store.apply([shopper(), cheese, wine])
    assert set(declarations_from_registry(store.registry, "shop").scenarios) == {"cheese", "wine"}
    store.apply([shopper(), cheese], objects_to_delete=[wine, wine.batch_source], partial=False)
    left = declarations_from_registry(make_store(registry).registry, "shop")
    assert set(left.scenarios) == {"cheese"}


@pytest.mark.spark
def test_two_bodies_of_one_profile_name_are_refused_by_the_reader_too(purchases_folder: Path) -> None:
    source = SourceSpec(name="other", path="raw/other", event_at="t")
    other = Profile("journey", shopper(), [Modality("m", source, text="{a}")])
    from qanchor_plugin.feast_ext.declarations import declarations_of

    with pytest.raises(DeclarationError, match="two different bodies"):
        declarations_of(
            "shop", [cheese_view(purchases_folder), cheese_view(purchases_folder, name="b", profile=other)]
        )


def test_feast_side_imports_without_torch_and_without_spark() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'pyspark', 'delta'): sys.modules[name] = None\n"
        "import qanchor_plugin.feast_ext, qanchor_plugin.feast_ext.declarations\n"
        "import qanchor_plugin.feast_ext.validation, qanchor_plugin.feast_ext.engine_freeze\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
