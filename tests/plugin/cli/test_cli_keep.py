"""forget, maintain, migrate, backup, restore and status's reasons, over the literal shop."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import chdir, closing
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from qanchor_plugin import schemas as S
from qanchor_plugin.identity import digest
from qanchor_plugin.prefix_store.forgotten import ForgottenUsers
from tests.plugin.cli.conftest import sequences_run
from tests.qanchor_command import Qanchor
from tests.shop import PURCHASES, ShopLake, user
from tests.spark.raw_bytes import forms, found_in

KEY = '{"household_id": 1}'


@pytest.fixture
def here(shop: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the shop's repo with an online store, the process standing in it."""
    folder = Path(shutil.copytree(shop, tmp_path / "shop"))
    with closing(sqlite3.connect(folder / "online.db")) as online, online:
        online.execute("create table shop_dairy_buyer (entity_key blob, feature_name text, value blob)")
        rows = [(user(one), name, b"v") for one in (1, 2) for name in ("embedding", "status")]
        online.executemany("insert into shop_dairy_buyer values (?, ?, ?)", rows)
    with chdir(folder):
        yield folder


def test_forget_clears_lake_and_online_store_and_leaves_a_receipt(qanchor: Qanchor, here: Path) -> None:
    needles = forms(user(1), KEY, ["rye bread"])
    assert {"online.db"} < set(found_in(here, needles))
    (here / "leavers.txt").write_text("household_id=1\n\n1\n")
    said = qanchor("forget", "--users", "leavers.txt", "--json")
    assert said.code == 0, said.err
    assert said.json["state"] == "removed"
    assert said.json["elsewhere"]["online store"] == 2
    (here / "leavers.txt").unlink()
    assert found_in(here, needles) == {}
    with closing(sqlite3.connect("online.db")) as online:
        assert online.execute("select count(*) from shop_dairy_buyer").fetchone() == (2,)
    assert json.loads(Path(said.json["receipt"]).read_text())["run"] == said.json["run"]
    again = qanchor("forget", "--user", "1")
    assert again.code == 0
    assert "nothing left" in again.out
    assert "Sources are not touched" in " ".join(again.out.split())
    status = qanchor("embed", "--query", "dairy?", "--user", "1", "--json")
    assert status.json["rows"][0]["status"] == "unknown_user"


def test_an_online_store_that_is_away_ends_with_1_and_another_run_finishes(
    qanchor: Qanchor, here: Path
) -> None:
    (here / "online.db").rename(here / "away.db")
    said = qanchor("forget", "--user", "1", "--json")
    assert said.code == 1
    assert said.json["state"] == "incomplete"
    assert "OnlineStoreError" in said.json["faults"][0]
    (here / "away.db").rename(here / "online.db")
    done = qanchor("forget", "--user", "1", "--json")
    assert (done.code, done.json["elsewhere"]["online store"]) == (0, 2)


def test_lift_takes_a_user_off_the_list(qanchor: Qanchor, here: Path) -> None:
    qanchor("forget", "--user", "1")
    assert qanchor("forget", "--user", "1", "--lift", "--json").json == {"lifted": 1}
    assert user(1) not in ForgottenUsers(here / "lake")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "nobody is named"),
        (("--users", "nobody.txt"), "there is no such file"),
        (("--user", "shopper=1"), "the profile's key is ['household_id']"),
    ],
)
def test_forget_refuses_before_anything_is_removed(
    qanchor: Qanchor, here: Path, arguments: tuple[str, ...], told: str
) -> None:
    said = qanchor("forget", *arguments)
    assert (said.code, said.out) == (1, "")
    assert told in " ".join(said.err.split())
    assert not (here / "lake" / "_forgotten").exists()


def test_maintain_reports_and_a_dry_run_only_counts(qanchor: Qanchor, here: Path) -> None:
    told = qanchor("maintain", "--dry-run", "--min-files", "2", "--json").json
    texts = told["tables"]["event_texts"]
    assert texts["files_before"] > texts["files_after"] == 1
    assert "nothing was changed" in qanchor("maintain", "--dry-run").out
    done = qanchor("maintain", "--min-files", "2", "--json").json
    assert done["tables"]["event_texts"] == texts
    runs = {one["job"]: one for one in qanchor("status", "--json").json["runs"]}
    assert runs["maintain"]["run"] == done["run"]


def test_backup_and_restore_bring_lake_and_registry_back(qanchor: Qanchor, here: Path) -> None:
    before = qanchor("status", "--json").json["scenarios"]
    assert qanchor("backup", "../kept", "--json").json["tables"]["behaviour_sequences"] == 2
    shutil.rmtree(here / "lake")
    (here / "registry.db").unlink()
    said = qanchor("restore", "../kept")
    assert said.code == 0, said.err
    assert "feast materialize" in said.out
    assert qanchor("status", "--json").json["scenarios"] == before
    refused = qanchor("restore", "../kept")
    assert refused.code == 1
    assert "--yes" in refused.err
    qanchor("forget", "--user", "1")
    again = qanchor("restore", "../kept", "--yes", "--json").json
    assert again["forgotten_again"] == 1
    assert found_in(here / "lake", forms(user(1), KEY, ["rye bread"])) == {}


def test_migrate_brings_the_first_release_up_to_date(qanchor: Qanchor, here: Path) -> None:
    told = qanchor("migrate", "--json").json
    assert told["before"] < told["after"]
    assert "nothing to do" in qanchor("migrate").out


def test_a_newer_lake_is_refused_by_name(qanchor: Qanchor, here: Path) -> None:
    (here / "lake" / "_layout.json").write_text('{"layout": 99}')
    for command in (("maintain",), ("migrate",), ("forget", "--user", "1"), ("backup", "../kept")):
        said = qanchor(*command)
        assert said.code == 1
        assert "has layout 99" in said.err


def test_status_says_what_is_stale_and_why(qanchor: Qanchor, here: Path) -> None:
    source = pa.table({"bought_at": pa.array([0], S.INSTANT)})
    for _ in range(5):
        write_deltalake(here / "raw" / "purchases", source, mode="append")
    from deltalake import DeltaTable

    table = digest("delta", str(DeltaTable(here / "raw" / "purchases").metadata().id))[:12]
    lake = ShopLake(here / "lake")
    lake.append("job_runs", [sequences_run("b1", f"{table}.0-2", {"rows": 3})])
    failed = sequences_run("b2", f"{table}.3-4", {"rows": 3}) | {S.STATE: "failed", S.MESSAGE: "disk full"}
    lake.append("job_runs", [failed])
    told = qanchor("status", "--json").json
    sources = {one["modality"]: one for one in told["sources"]}
    assert (sources["purchases"]["consumed"], sources["purchases"]["newest"]) == (2, 4)
    dairy, wine = (one["stale_because"] for one in told["scenarios"])
    assert dairy == ["source raw_purchases is 2 versions ahead of the lake"]
    assert wine[0].startswith("no run has completed its present version")
    assert told["failing"] == ["sequences: failed 1 times in a row: disk full"]
    assert "stale dairy_buyer, wine_buyer: source raw_purchases is 2 versions" in qanchor("status").out
    assert PURCHASES.source.name == "raw_purchases"


def test_status_tells_age_and_rows_of_another_identity(qanchor: Qanchor, here: Path) -> None:
    body = (here / "feature_store.yaml").read_text()
    (here / "feature_store.yaml").write_text(body.replace("2018-01-01T00:00:00Z", "2018-02-01T00:00:00Z"))
    lake = ShopLake(here / "lake")
    from tests.plugin.cli.conftest import embedding_row

    lake.append("scenario_embeddings", [embedding_row(2, "wine_buyer", "1" * 32)])
    dairy, wine = (one["stale_because"] for one in qanchor("status", "--json").json["scenarios"])
    assert "complete to 33 days ago, and its ttl is 7 days: feast materialize" in dairy
    assert any(one.startswith("1 stored rows are of another identity") for one in wine)
