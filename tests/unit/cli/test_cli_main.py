"""The command line as such: help, exit codes, errors, keys, purge."""

import subprocess
import sys
from pathlib import Path

import pytest

from qanchor_plugin.cli.instants import from_micros, human_duration, iso, parse_instant, to_micros
from qanchor_plugin.cli.output import human_bytes
from qanchor_plugin.cli.repo import unknown
from qanchor_plugin.cli.user_keys import parse_user
from qanchor_plugin.declare import EntityRef
from qanchor_plugin.errors import InputDataError
from tests.qanchor_command import Qanchor

LOOKS = ("doctor", "init", "preview", "status", "scenarios", "embed", "refresh", "purge")
KEEPS = ("forget", "maintain", "migrate", "backup", "restore")
COMMANDS = (*LOOKS, *KEEPS, "pairs", "train", "tune", "evaluate", "calibrate", "plan")
CARD = EntityRef(name="card", join_key="card_id", value_type="INT64")
SHOP = EntityRef(name="shop", join_key="shop", value_type="STRING")


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom qanchor_plugin.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "print(sorted({'feast', 'pyspark', 'torch', 'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(command in told.stdout for command in COMMANDS)
    assert told.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_has_examples(qanchor: Qanchor, command: str) -> None:
    said = qanchor(command, "--help")
    assert said.code == 0
    assert "Examples:" in said.out
    assert f"qanchor {command}" in said.out


def test_misuse_ends_with_2(qanchor: Qanchor) -> None:
    assert qanchor("embed", "--query", "x").code == 2
    assert qanchor("preview", "x", "--from", "somewhere").code == 2
    assert qanchor("no-such-command").code == 2


def test_errors_are_a_message_and_debug_adds_the_traceback(qanchor: Qanchor, tmp_path: Path) -> None:
    said = qanchor("purge", "--repo", str(tmp_path))
    assert (said.code, said.out) == (1, "")
    assert "has no feature_store.yaml" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in qanchor("purge", "--repo", str(tmp_path), "--debug").err


def test_the_repo_is_found_upwards(qanchor: Qanchor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "feature_store.yaml").write_text("qanchor:\n  lake: data/lake\n")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert qanchor("purge", "--json").json["lake"] == str(tmp_path / "data" / "lake")


def test_purge_only_with_yes_and_only_a_lake(qanchor: Qanchor, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("qanchor:\n  lake: lake\n")
    assert qanchor("purge", "--repo", str(tmp_path)).code == 0, "there is nothing to remove"
    table = tmp_path / "lake" / "job_runs"
    table.mkdir(parents=True)
    (table / "part").write_bytes(bytes(2500))
    said = qanchor("purge", "--repo", str(tmp_path))
    assert (said.code, table.exists()) == (1, True)
    assert "2.5 kB" in said.out
    (tmp_path / "lake" / "thesis").mkdir()
    refused = qanchor("purge", "--repo", str(tmp_path), "--yes")
    assert (refused.code, table.exists()) == (1, True)
    assert "['thesis']" in refused.err
    (tmp_path / "lake" / "thesis").rmdir()
    done = qanchor("purge", "--repo", str(tmp_path), "--yes", "--json")
    assert (done.code, done.json["removed"], done.json["parts"]) == (0, True, {"job_runs": 2500})
    assert not (tmp_path / "lake").exists()


def test_users_as_people_write_them() -> None:
    assert parse_user("card_id=7", [CARD]) == {"card_id": 7}
    assert parse_user("7", [CARD]) == {"card_id": 7}
    assert parse_user("shop=a=b", [SHOP]) == {"shop": "a=b"}
    assert parse_user("card_id=-1,shop=x", [SHOP, CARD]) == {"shop": "x", "card_id": -1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("user=7", "the profile's key is ['card_id']"),
        ("seven", "not of type INT64"),
        ("card_id=", "not of type"),
    ],
)
def test_users_that_cannot_be_read(text: str, told: str) -> None:
    with pytest.raises(InputDataError) as raised:
        parse_user(text, [CARD])
    assert told in str(raised.value)


def test_instants() -> None:
    assert iso(parse_instant("--at", "2018-01-01")) == "2018-01-01T00:00:00Z"
    assert iso(parse_instant("--at", "2018-01-01T02:00:00+02:00")) == "2018-01-01T00:00:00Z"
    assert to_micros(parse_instant("--at", "1970-01-01T00:00:00.000001Z")) == 1
    assert iso(from_micros(1_500_000)) == "1970-01-01T00:00:01.500000Z"
    with pytest.raises(InputDataError, match="is no instant"):
        parse_instant("--at", "yesterday")


def test_words() -> None:
    assert (human_bytes(999), human_bytes(1400), human_bytes(87e6)) == ("999 B", "1.4 kB", "87.0 MB")
    assert (human_duration(3 * 86_400), human_duration(7200), human_duration(0.5)) == (
        "3 days",
        "2 h",
        "0.50 s",
    )
    assert unknown("scenario", "churn", ["churn_risk", "beer"]) == (
        "there is no scenario 'churn'. Did you mean 'churn_risk'? Known: beer, churn_risk."
    )
