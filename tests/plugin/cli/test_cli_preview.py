"""``preview``: over the lake, over the sources, and of files that declare amiss; it writes nothing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from qanchor_plugin.cli.preview_report import neighbours, rotations, warnings
from qanchor_plugin.cli.preview_sample import draw
from qanchor_plugin.cli.repo import opened
from tests.qanchor_command import Qanchor

from .conftest import DAIRY, write_repo

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below."""
    found = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {
        str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found if "__pycache__" not in str(path)
    }


def test_preview_from_the_lake_shows_the_prefix_and_writes_nothing(qanchor: Qanchor, in_shop: Path) -> None:
    before = files_of(in_shop)
    said = qanchor("preview", "dairy_buyer", "--json")
    assert said.code == 0, said.err
    told = said.json
    assert (told["query"], told["sample"]) == (DAIRY, {"users": 3, "read_from": "lake"})
    assert told["user"] == {"key": '{"household_id": 1}', "num_events": 3}
    events = [line["text"] for line in told["prefix"] if line["kind"] == "evt"]
    assert events == ["whole milk", "rye bread", "free range eggs", "small home"]
    assert any("dairy" in line["text"] for line in told["prefix"] if line["kind"] == "grp")
    assert told["truncated"]["events"]["purchases"] == {"max_events": 64, "users": 0, "events": 0}
    assert told["timing"]["prefill_ms"] >= 0
    assert any("1 of 3 users have no visible event" in one for one in told["warnings"])
    assert any("home says nothing of 2 of 3 users" in one for one in told["warnings"])
    assert files_of(in_shop) == before
    shown = qanchor("preview", "dairy_buyer").out
    assert "free range eggs" in shown
    assert "one more scenario" in shown


def test_an_unregistered_scenario_is_named_by_the_files(qanchor: Qanchor, in_shop: Path) -> None:
    said = qanchor("preview", "wine_buyr")
    assert said.code == 1
    assert "Did you mean 'wine_buyer'? Known: dairy_buyer, wine_buyer." in said.err


def test_a_file_that_does_not_import_is_named_with_its_line(qanchor: Qanchor, tmp_path: Path) -> None:
    write_repo(tmp_path / "shop")
    (tmp_path / "shop" / "scenarios" / "broken.py").write_text("x = 1\nfrom nowhere import thing\n")
    said = qanchor("preview", "dairy_buyer", "--repo", str(tmp_path / "shop"))
    assert said.code == 1
    assert "scenarios/broken.py, line 2: ModuleNotFoundError" in said.err
    assert "Traceback" not in said.err


def test_a_lake_of_another_declaration_is_not_used(qanchor: Qanchor, tmp_path: Path) -> None:
    write_repo(tmp_path / "shop")
    said = qanchor("preview", "dairy_buyer", "--from", "lake", "--repo", str(tmp_path / "shop"))
    assert said.code == 1
    assert "Use --from sources, or build it" in " ".join(said.err.split())


@pytest.fixture
def own_repo(qanchor: Qanchor, tmp_path: Path) -> Path:
    """A repo that ``init`` wrote over three real tables."""
    bought = [
        {
            "customer_id": number % 6,
            "brand": ("oak", "elm")[number % 2],
            "category": ("dairy", "bakery", "drinks")[number % 3],
            "sales_value": 2.0,
            "event_timestamp": datetime(2025, 1, 1, 12, tzinfo=UTC) + timedelta(days=number),
        }
        for number in range(24)
    ]
    write_deltalake(tmp_path / "purchases", pa.Table.from_pylist(bought))
    pq.write_table(
        pa.table({"customer_id": [0, 1], "age": ["18-25", "26-40"]}), tmp_path / "customers.parquet"
    )
    sources = ("--source", str(tmp_path / "purchases"), "--source", str(tmp_path / "customers.parquet"))
    assert qanchor("init", str(tmp_path / "own"), *sources).code == 0
    return tmp_path / "own"


@pytest.mark.spark
def test_a_repo_from_init_previews_and_plans(qanchor: Qanchor, own_repo: Path, spark: "SparkSession") -> None:
    said = qanchor("preview", "active_customer", "--sample", "4", "--repo", str(own_repo), "--json")
    assert said.code == 0, said.err
    told = said.json
    assert told["sample"] == {"users": 4, "read_from": "sources"}
    assert (told["user"]["num_events"], told["events"]["median"]) == (4, 4)
    texts = {line["text"] for line in told["prefix"] if line["kind"] == "evt"}
    assert texts & {"oak dairy", "elm bakery", "oak drinks", "elm dairy", "oak bakery", "elm drinks"}
    assert not (own_repo / "data").exists(), "neither lake nor registry"
    plan(own_repo)


def plan(folder: Path) -> None:
    """``feast plan`` accepts the repo."""
    from feast import repo_operations

    from qanchor_plugin.cli.repo_files import _importable

    with opened(folder) as here, _importable(folder):
        repo_operations.plan(here.config, folder, skip_source_validation=False)


@pytest.mark.spark
def test_sources_without_usable_rows_are_named(
    qanchor: Qanchor, own_repo: Path, spark: "SparkSession"
) -> None:
    yaml = own_repo / "feature_store.yaml"
    yaml.write_text(yaml.read_text().replace("clock: 2025-01-25", "clock: 2015-01-25"))
    profiles = own_repo / "profiles.py"
    text = profiles.read_text()
    start = text.index("        Modality(", text.index('"customers"') - 400)
    profiles.write_text(text[:start] + text[text.index("    ],\n    window") :])
    said = qanchor("preview", "active_customer", "--repo", str(own_repo))
    assert said.code == 1
    assert "no source of profile 'customer_journey' holds a usable row" in " ".join(said.err.split())


def test_neighbours_by_hand() -> None:
    embeddings = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    found = neighbours(["a", "b", "c"], embeddings)
    assert [one["nearest"][0] for one in found] == [
        {"user": "b", "cosine": 0.8},
        {"user": "a", "cosine": 0.8},
        {"user": "b", "cosine": 0.6},
    ]


def test_identical_embeddings_are_warned_of() -> None:
    from tests.shop import PROFILE

    same = np.tile(np.eye(1, 128, dtype=np.float32), (3, 1))
    assert warnings([], PROFILE, same)[-1].startswith(
        "the embeddings are nearly identical (median cosine 1.0000)"
    )


def test_rotations_keep_the_words() -> None:
    assert rotations("a b c", 4) == ["a b c", "b c a", "c a b", "a b c"]


def test_the_same_users_are_drawn_every_time() -> None:
    users = [bytes([number]) for number in range(50)]
    assert draw(users, 5) == draw(users, 5) == sorted(draw(users, 5))
    assert len(set(draw(users, 5))) == 5
    assert draw(users[:3], 5) == users[:3]
