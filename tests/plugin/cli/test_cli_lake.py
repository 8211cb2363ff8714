"""``status``, ``scenarios`` and ``embed`` over a literal lake, with hand-counted numbers."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from qanchor_plugin.cli.lake_report import BAD_ROW_REASONS
from tests.qanchor_command import Qanchor

from .conftest import DAIRY, write_repo


def test_status_counts_what_stands(qanchor: Qanchor, in_shop: Path) -> None:
    said = qanchor("status", "--json")
    assert said.code == 0, said.err
    tables = {one["table"]: one for one in said.json["tables"]}
    assert tables["behaviour_sequences"]["rows"] == 3
    assert tables["behaviour_sequences"]["version"] == 2
    assert tables["scenario_embeddings"]["rows"] == 3
    assert tables["job_runs"]["bytes"] > 0
    assert tables["user_prefixes"] == {"table": "user_prefixes", "exists": False}
    dairy, wine = sorted(said.json["scenarios"], key=lambda one: one["scenario"])
    assert (dairy["covered"], dairy["known"], round(dairy["coverage"], 4)) == (2, 3, 0.6667)
    assert (dairy["complete_to"], dairy["age_seconds"], dairy["fresh"]) == (
        "2017-12-30T00:00:00Z",
        172_800.0,
        True,
    )
    assert (wine["covered"], wine["complete_to"], wine["fresh"]) == (0, None, False)


def test_status_counts_bad_rows_since_the_last_whole_read(qanchor: Qanchor, in_shop: Path) -> None:
    bad = qanchor("status", "--json").json["bad_rows"]
    assert bad == {"purchases": {"null_user": 5, "blank_text": 1, "future_event_at": 4}}


def test_bad_row_reasons_are_those_of_the_jobs() -> None:
    from spark_jobs.transforms.validate import BLANK, REASONS, REPAIRED

    assert (*REASONS, REPAIRED, BLANK) == BAD_ROW_REASONS


def test_status_names_what_is_not_point_in_time(qanchor: Qanchor, in_shop: Path) -> None:
    said = qanchor("status")
    assert "purchases: source 'raw_purchases' has no created_timestamp_column" in said.out
    assert "dairy_buyer" in said.out
    assert "2 of 3 (66.7%)" in said.out
    assert "5 null_user" in said.out


def test_status_of_a_lake_that_does_not_exist_says_the_next_step(
    qanchor: Qanchor, shop: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "young"
    write_repo(folder)
    (folder / "registry.db").write_bytes((shop / "registry.db").read_bytes())
    said = qanchor("status", "--repo", str(folder), "--json")
    assert said.code == 0, said.err
    assert said.json["lake_exists"] is False
    assert "feast materialize 1970-01-01T00:00:00 2018-01-01T00:00:00" in said.json["next_step"]
    assert "feast materialize" in qanchor("status", "--repo", str(folder)).out
    embed = qanchor("embed", "--query", "x?", "--user", "1", "--repo", str(folder))
    assert embed.code == 1
    assert "Run feast materialize once" in " ".join(embed.err.split())


def test_an_empty_registry_says_the_next_step(qanchor: Qanchor, tmp_path: Path) -> None:
    write_repo(tmp_path / "new")
    said = qanchor("status", "--repo", str(tmp_path / "new"))
    assert said.code == 1
    assert "holds no scenario yet. Run feast apply" in " ".join(said.err.split())


def test_scenarios_are_listed_and_explained(qanchor: Qanchor, in_shop: Path) -> None:
    assert [one["scenario"] for one in qanchor("scenarios", "--json").json] == ["dairy_buyer", "wine_buyer"]
    told = qanchor("scenarios", "dairy_buyer", "--json").json
    assert (told["query"], told["engine"], told["ttl_seconds"]) == (DAIRY, "demo", 604_800.0)
    assert told["query_tokens"] > 3
    assert told["lake"]["covered"] == 2
    assert [one["version"] for one in told["versions"]][:1] == ["v0"]
    assert told["read"]["online"] == (
        'store.get_online_features(["dairy_buyer:embedding"], [{"household_id": 7}], full_feature_names=True)'
        ".to_dict()"
    )
    shown = qanchor("scenarios", "dairy_buyer").out
    assert told["scenario_id"] in shown
    assert "shop@example.org" in shown


def test_an_unknown_scenario_lists_the_known_ones(qanchor: Qanchor, in_shop: Path) -> None:
    said = qanchor("scenarios", "dairy_buyers")
    assert said.code == 1
    assert "there is no scenario 'dairy_buyers'. Did you mean 'dairy_buyer'?" in said.err
    assert "Known: dairy_buyer, wine_buyer." in said.err


def test_embed_answers_queries_nobody_registered(qanchor: Qanchor, in_shop: Path) -> None:
    users = [part for one in ("1", "household_id=2", "3", "4") for part in ("--user", one)]
    said = qanchor("embed", "--query", "dairy?", "--query", "wine?", *users, "--json")
    assert said.code == 0, said.err
    rows = said.json["rows"]
    assert [row["num_events"] for row in rows] == [3, 3, 1, 1, 0, 0, None, None]
    assert [row["status"] for row in rows] == ["computed"] * 6 + ["unknown_user"] * 2
    assert rows[0]["as_of"] == "2017-12-31T00:00:00Z"
    assert np.allclose([np.linalg.norm(row["embedding"]) for row in rows[:6]], 1, atol=1e-5)
    assert rows[6]["embedding"] is None
    assert "unknown user" in said.err


def test_embed_at_an_instant_sees_nothing_later(qanchor: Qanchor, in_shop: Path) -> None:
    said = qanchor("embed", "--query", "dairy?", "--user", "1", "--at", "2017-12-15T00:00:00Z", "--json")
    assert [row["num_events"] for row in said.json["rows"]] == [1]
    assert said.json["cutoff"] == "2017-12-15T00:00:00Z"


def test_embed_prints_cosines_and_writes_files(qanchor: Qanchor, in_shop: Path, tmp_path: Path) -> None:
    array, table = tmp_path / "v.npy", tmp_path / "v.parquet"
    arguments = (
        "embed",
        "--query",
        "dairy?",
        "--query",
        "wine?",
        "--user",
        "1",
        "--user",
        "2",
        "--user",
        "4",
    )
    said = qanchor(*arguments, "--output", str(array))
    assert "cosine between users, 'dairy?'" in said.out
    assert "cosine between queries" in said.out
    assert qanchor(*arguments, "--output", str(table)).code == 0
    vectors = np.load(array)
    assert (vectors.shape, vectors.dtype) == ((3, 2, 128), np.float32)
    assert np.isnan(vectors[2]).all()
    rows = pq.read_table(table)
    assert rows["household_id"].to_pylist() == [1, 1, 2, 2, 4, 4]
    np.testing.assert_allclose(rows["embedding"][3].as_py(), vectors[1, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--query", "dairy?", "--user", "shopper=1"), "the profile's key is ['household_id']"),
        (("--query", "dairy?", "--user", "one"), "not of type INT64"),
        (("--query", "dairy?", "--user", "1", "--profile", "journy"), "Did you mean 'journey'?"),
        (("--query", "dairy?", "--user", "1", "--at", "soon"), "is no instant"),
        (("--query", "dairy?", "--user", "1", "--output", "v.csv"), "must end in one of"),
        (("--query", " ", "--user", "1"), "empty"),
    ],
)
def test_embed_refuses_in_one_message(
    qanchor: Qanchor, in_shop: Path, arguments: tuple[str, ...], told: str
) -> None:
    said = qanchor("embed", *arguments)
    assert (said.code, said.out) == (1, "")
    assert told in " ".join(said.err.split())
    assert "Traceback" not in said.err


def test_embed_of_nobody_known_ends_with_1(qanchor: Qanchor, in_shop: Path) -> None:
    said = qanchor("embed", "--query", "dairy?", "--user", "4", "--json")
    assert said.code == 1
    assert said.json["rows"][0]["status"] == "unknown_user"
