"""Apply-time checks: all faults at once, before any write, as Feast's own commands run them."""

import itertools
from pathlib import Path
from textwrap import dedent

import pytest
from feast import FeatureService, FeatureStore
from feast.repo_config import load_repo_config
from feast.repo_operations import apply_total, plan

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.declarations import (
    declarations_from_registry,
    declarations_of,
    settings_from_config,
)
from qanchor_plugin.feast_ext.validation import check_declarations, service_faults
from tests.plugin.conftest import StoreMaker, cheese_view, purchases_source, shopper

pytestmark = pytest.mark.spark

_numbers = itertools.count()

YAML = """
project: shop
provider: qanchor_plugin.feast_ext.provider.QAnchorProvider
entity_key_serialization_version: 3
registry: {path: registry.db, cache_ttl_seconds: 0, enable_online_feature_view_versioning: true}
online_store: {type: sqlite, path: online.db}
offline_store: {type: qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore}
batch_engine: {type: qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine}
qanchor: {lake: lake, device: cpu}
"""

HEAD = """
from datetime import timedelta
from feast import Entity, FeatureService, ValueType
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat
from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.feast_ext import anchor_view

shopper = Entity(name="shopper", join_keys=["user_id"], value_type=ValueType.INT64)

def behaviour(name, path, text, **changes):
    source = SparkSource(name=name, path=path, table_format=DeltaFormat(), timestamp_field="bought_at")
    return Modality(name, source, text, **changes)
"""

GOOD = """
good = Profile("good", shopper, [behaviour("purchases", FOLDER, "{brand}")])
cheese = anchor_view("cheese", "Will they buy cheese?", good)
"""

BAD = """
one = Profile("journey", shopper, [behaviour("purchases", FOLDER, "{brand} {colour}", amounts=("product",))])
two = Profile("journey", shopper, [behaviour("nowhere", FOLDER + "/none", "{brand}")])
long_query = anchor_view("long_query", "cheese " * 200, one)
no_engine = anchor_view("no_engine", "Will they?", two, engine="no/such/folder")
no_prompt = anchor_view("no_prompt", "Will they?", one, soft_prompt="no/such/prompt")
service = FeatureService(name="fast", features=[long_query], precompute_online=True)
"""


@pytest.fixture
def repo(tmp_path: Path, purchases_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a feature repo and stands in it; each module has a name of its own in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "feature_store.yaml").write_text(YAML)

    def write(body: str):
        for old in tmp_path.glob("shop_*.py"):
            old.unlink()
        text = f"FOLDER = {str(purchases_folder)!r}\n" + dedent(HEAD) + dedent(body)
        (tmp_path / f"shop_{next(_numbers)}.py").write_text(text)
        return load_repo_config(tmp_path, tmp_path / "feature_store.yaml")

    return write


FAULTS = (
    "'journey' is declared with two different bodies",
    "the query has 2",
    "scenario 'no_engine': ",
    "scenario 'no_prompt': ",
    "has no columns ['colour']",
    "amount 'product' is string",
    "source 'nowhere' cannot be read",
    "feature service 'fast' has precompute_online=True",
)


@pytest.mark.parametrize("command", [plan, apply_total])
def test_feast_commands_name_every_fault_in_one_message_and_write_nothing(
    repo, tmp_path: Path, command
) -> None:
    config = repo(BAD)
    with pytest.raises(DeclarationError) as caught:
        command(config, tmp_path, False)
    said = str(caught.value)
    assert [fault for fault in FAULTS if fault not in said] == []
    assert "nothing was written" in said
    store = FeatureStore(config=config)
    assert store.registry.list_feature_views("shop") == []
    assert store.registry.list_data_sources("shop") == []


def test_a_good_repo_is_planned_applied_and_planned_again_without_change(
    repo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = repo(GOOD)
    plan(config, tmp_path, False)
    assert "Created feature view" in capsys.readouterr().out
    apply_total(config, tmp_path, False)
    declared = declarations_from_registry(FeatureStore(config=config).registry, "shop")
    assert declared.scenarios["cheese"].engine_digest
    capsys.readouterr()
    plan(config, tmp_path, False)
    said = capsys.readouterr().out
    assert "feature view" not in said


def test_a_source_that_broke_after_a_good_apply_is_found_by_the_next_one(
    repo, tmp_path: Path, purchases_folder: Path
) -> None:
    config = repo(GOOD)
    apply_total(config, tmp_path, False)
    apply_total(config, tmp_path, False)
    config = repo(GOOD.replace('"{brand}"', '"{gone}"'))
    with pytest.raises(DeclarationError, match=r"has no columns \['gone'\]"):
        apply_total(config, tmp_path, False)
    text = FeatureStore(config=config).registry.get_feature_view("cheese", "shop").batch_source.to_json()
    assert "{brand}" in text


def test_python_apply_is_checked_too_and_the_sql_registry_is_told_how_to_undo(
    make_store: StoreMaker, tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(DeclarationError, match="Nothing was written") as caught:
        make_store().apply([shopper(), cheese_view(missing)])
    assert "source 'purchases' cannot be read" in str(caught.value)
    assert make_store().registry.list_feature_views("shop") == []
    sql = make_store("sql")
    with pytest.raises(DeclarationError, match="has already been written"):
        sql.apply([shopper(), cheese_view(missing)])
    sql.registry.delete_feature_view("cheese", project="shop")
    assert make_store("sql").registry.list_feature_views("shop") == []


def test_a_view_frozen_for_another_store_is_named(
    make_store: StoreMaker, purchases_folder: Path, tmp_path: Path
) -> None:
    QueryAnchorEngine.load("demo", device="cpu").save_pretrained(tmp_path / "engine")
    store = make_store()
    store._get_provider()
    make_store(engine="engine")._get_provider()
    with pytest.raises(
        DeclarationError, match=r"was written with engine '.*engine', but this store's is 'demo'"
    ):
        store.apply([shopper(), cheese_view(purchases_folder)])


def test_keys_that_are_not_in_a_source_and_texts_for_instants_are_faults(
    make_store: StoreMaker, spark, purchases_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    spark.sql("SELECT 'a' AS brand, '2017' AS bought_at").write.format("delta").save(str(folder))
    view = cheese_view(
        folder,
        profile=Profile(
            "journey", shopper(), [Modality("purchases", purchases_source(folder), text="{brand}")]
        ),
    )
    settings = settings_from_config(make_store().config)
    faults = check_declarations(settings, declarations_of("shop", [view]), spark)
    assert len(faults) == 2
    assert "has no columns ['user_id']" in faults[0]
    assert "'bought_at' is string, not an instant" in faults[1]
    good = declarations_of("shop", [cheese_view(purchases_folder)])
    assert check_declarations(settings, good, spark) == []


def test_only_precomputed_services_with_anchors_are_faults() -> None:
    view = cheese_view(Path("raw"))
    plain = FeatureService(name="plain", features=[view])
    fast = FeatureService(name="fast", features=[view], precompute_online=True)
    assert service_faults([plain], ["cheese"]) == []
    assert service_faults([fast], ["other"]) == []
    assert len(service_faults([plain, fast], ["cheese"])) == 1
