"""``qanchor init`` on small real tables: what it guesses, what it writes, what it refuses."""

import ast
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from qanchor_plugin.declare import Settings
from tests.qanchor_command import Qanchor


def sources(folder: Path, *names: str) -> list[str]:
    return [part for name in names for part in ("--source", str(folder / name))]


def test_guesses_keys_times_texts_groups_and_amounts(qanchor: Qanchor, own_tables: Path) -> None:
    said = qanchor(
        "init",
        str(own_tables / "shop"),
        *sources(own_tables, "purchases", "visits", "customers.parquet"),
        "--json",
    )
    assert said.code == 0, said.err
    assert said.json["entities"][0]["join_key"] == "customer_id"
    assert said.json["entities"][0]["value_type"] == "INT64"
    purchases, visits, customers = said.json["modalities"]
    assert (purchases["kind"], purchases["timestamp_field"]) == ("events", "event_timestamp")
    assert purchases["text"] == "{brand} {category}"
    assert purchases["group_by"] == ["category", "brand"]
    assert purchases["amounts"] == ["sales_value"]
    assert (visits["timestamp_field"], visits["created_timestamp_column"]) == ("visited_at", "created_at")
    assert (customers["kind"], customers["static"], customers["text"]) == ("tabular", True, "age {age}")


def test_a_table_of_one_row_a_user_with_a_time_is_tabular(qanchor: Qanchor, own_tables: Path) -> None:
    said = qanchor("init", str(own_tables / "shop"), *sources(own_tables, "members.parquet"), "--json")
    (members,) = said.json["modalities"]
    assert (members["kind"], members["static"], members["timestamp_field"]) == ("tabular", False, "joined")


def test_the_clock_is_the_midnight_after_data_that_ended(qanchor: Qanchor, own_tables: Path) -> None:
    folder = own_tables / "shop"
    assert qanchor("init", str(folder), *sources(own_tables, "purchases")).code == 0
    section = yaml.safe_load((folder / "feature_store.yaml").read_text())["qanchor"]
    settings = Settings.from_mapping(section, repo_path=folder)
    assert settings.now().isoformat() == "2025-01-13T00:00:00+00:00"
    assert settings.lake == str(folder / "data" / "lake")


def test_the_written_python_is_whole_and_imports_resolve(qanchor: Qanchor, own_tables: Path) -> None:
    folder = own_tables / "shop"
    said = qanchor("init", str(folder), *sources(own_tables, "purchases", "customers.parquet"))
    assert "edit profiles.py" in said.out
    for file in ("entities.py", "sources.py", "profiles.py", "scenarios/example.py"):
        ast.parse((folder / file).read_text())
    names = {
        node.id
        for node in ast.walk(ast.parse((folder / "sources.py").read_text()))
        if isinstance(node, ast.Name)
    }
    assert {"purchases", "SparkSource", "DeltaFormat"} <= names
    assert "customers" not in names, "feast would ask a module-level source without a time for one"


def test_relative_sources_are_relative_to_the_new_folder(
    qanchor: Qanchor, own_tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_tables)
    assert qanchor("init", "deep/shop", "--source", "bought=purchases").code == 0
    text = (own_tables / "deep/shop/sources.py").read_text()
    assert 'path="../../purchases"' in text
    assert "bought = SparkSource(" in text


def test_a_folder_that_holds_a_file_is_left_alone(qanchor: Qanchor, own_tables: Path) -> None:
    folder = own_tables / "shop"
    folder.mkdir()
    (folder / "sources.py").write_text("mine = 1\n")
    said = qanchor("init", str(folder), *sources(own_tables, "purchases"))
    assert said.code == 1
    assert "already holds ['sources.py']" in said.err
    assert "Traceback" not in said.err
    assert (folder / "sources.py").read_text() == "mine = 1\n"
    assert [one.name for one in folder.iterdir()] == ["sources.py"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nowhere/table.delta", "does not exist"),
        ("broken", "neither"),
        ("broken.parquet", "cannot be read as parquet"),
        ("empty.parquet", "holds no row"),
        ("bare.parquet", "says what happened"),
    ],
)
def test_sources_that_cannot_be_used(qanchor: Qanchor, own_tables: Path, given: str, told: str) -> None:
    (own_tables / "broken").mkdir()
    (own_tables / "broken.parquet").write_bytes(b"not parquet")
    pq.write_table(pa.table({"customer_id": pa.array([], pa.int64())}), own_tables / "empty.parquet")
    pq.write_table(pa.table({"customer_id": [1, 1, 2]}), own_tables / "bare.parquet")
    said = qanchor("init", str(own_tables / "shop"), *sources(own_tables, given))
    assert said.code == 1
    assert told in said.err or (told == "neither" and "without _delta_log" in said.err)
    assert not (own_tables / "shop").exists()


def test_an_entity_that_a_source_lacks(qanchor: Qanchor, own_tables: Path) -> None:
    arguments = sources(own_tables, "purchases", "customers.parquet")
    said = qanchor("init", str(own_tables / "shop"), *arguments, "--entity", "basket_id")
    assert said.code == 1
    assert "has no such column. Columns that all sources share: ['customer_id']" in " ".join(said.err.split())


def test_a_key_of_decimals_is_refused(qanchor: Qanchor, own_tables: Path) -> None:
    said = qanchor(
        "init", str(own_tables / "shop"), *sources(own_tables, "purchases"), "--entity", "sales_value"
    )
    assert said.code == 1
    assert "is of type ['double']" in said.err


def test_composite_keys(qanchor: Qanchor, own_tables: Path) -> None:
    arguments = sources(own_tables, "purchases")
    said = qanchor(
        "init", str(own_tables / "shop"), *arguments, "--entity", "customer_id", "--entity", "brand", "--json"
    )
    assert [(one["join_key"], one["value_type"]) for one in said.json["entities"]] == [
        ("customer_id", "INT64"),
        ("brand", "STRING"),
    ]
    assert said.json["modalities"][0]["text"] == "{category}"
    assert "[customer, brand]" in (own_tables / "shop" / "profiles.py").read_text()
