"""``qanchor tune`` over a literal lake: versions, what is left out and said, what is refused."""

import json
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from qanchor_plugin.cli.repo import opened
from qanchor_plugin.cli.repo_files import declared_in_files
from qanchor_plugin.cli.tune import tune
from qanchor_plugin.engine import SoftPrompt
from qanchor_plugin.errors import DeclarationError, InputDataError
from qanchor_plugin.feast_ext.engine_facts import engine_facts, soft_prompt_facts
from tests.shop import EVENTS, PROFILE, at, demo_engine, shop_lake, user

from .conftest import write_repo

HEADING = "household_id,event_timestamp,bought\n"
HOUSEHOLDS = range(11, 21)
"""They did what household 1 (the odd ones) or 2 did."""
ROWS = "".join(
    f"{household},2017-12-{day}T12:00:00Z,{household % 2}\n" for day in (16, 25) for household in HOUSEHOLDS
)
Tune = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def own_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repo with its lake; nothing is registered, and nothing need be."""
    folder = tmp_path_factory.mktemp("tune") / "shop"
    write_repo(folder)
    lake = shop_lake(folder / "lake", demo_engine())
    for household in HOUSEHOLDS:
        lake.add_events(household, EVENTS[1 if household % 2 else 2])
    return folder


@pytest.fixture
def run(own_shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Tune:
    """``run(labels, ...)``: the command over the text of a labels file; its JSON."""
    app = typer.Typer()
    app.command("tune")(tune)

    def called(labels: str, *arguments: str, scenario: str = "dairy_buyer", as_json: bool = True) -> Any:
        (tmp_path / "labels.csv").write_text(labels)
        given = [scenario, "--labels", str(tmp_path / "labels.csv"), "--label-column", "bought"]
        given += ["--repo", str(own_shop), "--output", str(tmp_path / scenario), "--steps", "3"]
        capfd.readouterr()
        app([*given, *arguments, *(["--json"] if as_json else [])], standalone_mode=False)
        said = capfd.readouterr().out
        return json.loads(said) if as_json else said

    return called


def test_versions_follow_each_other_and_the_first_stays(run: Tune, tmp_path: Path) -> None:
    first = run(HEADING + ROWS, "--tokens", "2")
    second = run(HEADING + ROWS, "--seed", "1")
    assert first["folder"] == str(tmp_path / "dairy_buyer" / "v1")
    assert second["line"] == f'soft_prompt="{tmp_path / "dairy_buyer" / "v2"}"'
    assert first["rows"] == {
        "given": 20,
        "used": 20,
        "unknown_user": 0,
        "no_behaviour": 0,
        "by_label": {"0": 10, "1": 10},
    }
    prompts = [SoftPrompt.load(one["folder"]) for one in (first, second)]
    assert [one.tokens.shape for one in prompts] == [(2, 384), (6, 384)]
    assert {one.engine_digest for one in prompts} == {demo_engine().digest} == {first["engine_digest"]}
    record = json.loads((tmp_path / "dairy_buyer" / "v2" / "tuning.json").read_text())
    assert (record["seed"], record["version"], record["plan"]["steps"]) == (1, "v2", 3)
    assert record["labels_digest"] == first["labels_digest"]


def test_the_printed_line_is_one_that_feast_apply_resolves(own_shop: Path, run: Tune) -> None:
    """By default the versions stand in the repo, and the line is relative to it."""
    output = str(own_shop / "soft_prompts" / "dairy_buyer")
    said = run(HEADING + ROWS, "--output", output, as_json=False)
    assert 'soft_prompt="soft_prompts/dairy_buyer/v1"' in said
    with chdir(own_shop):
        digest = soft_prompt_facts("soft_prompts/dairy_buyer/v1", engine_facts("demo", "cpu"))
        assert digest == SoftPrompt.load(output + "/v1").digest
        file = own_shop / "scenarios" / "buyers.py"
        before = file.read_text()
        line = 'soft_prompt="soft_prompts/dairy_buyer/v1", '
        file.write_text(before.replace('name="dairy_buyer", ', 'name="dairy_buyer", ' + line))
        try:
            with opened(None) as here:
                scenario = declared_in_files(here).scenarios["dairy_buyer"]
        finally:
            file.write_text(before)
    assert scenario.soft_prompt == "soft_prompts/dairy_buyer/v1"


def test_rows_are_read_as_of_their_own_instants(own_shop: Path) -> None:
    """The prefix of a row is the backend's own at that instant: later events are not seen."""
    from qanchor_plugin.prefix_store import LakeTables
    from qanchor_plugin.training.tuning.behaviour import behaviour_at
    from qanchor_plugin.training.tuning.labels import LabelledRows

    cutoffs = [at("2017-12-21"), at("2017-12-11"), at("2017-12-31")]
    rows = LabelledRows(
        users=(user(1),) * 3, cutoffs=np.array(cutoffs), classes=np.array([0, 1, 0]), names=("0", "1")
    )
    tables = LakeTables(str(own_shop / "lake"))
    seen = behaviour_at(rows, PROFILE, demo_engine(), tables)
    assert [one.num_events for one in seen.prefixes] == [2, 1, 3]
    assert [one.as_of for one in seen.prefixes] == [at("2017-12-20"), at("2017-12-10"), at("2017-12-31")]


def test_what_is_left_out_is_counted_and_said(run: Tune) -> None:
    """Household 4 was never seen; on 2017-12-01 nobody had bought anything."""
    odd = "4,2017-12-20,1\n4,2017-12-21,0\n1,2017-12-01,1\n3,2017-12-20,0\n"
    found = run(HEADING + ROWS + odd)
    assert found["rows"]["given"] == 24
    assert (found["rows"]["used"], found["rows"]["unknown_user"], found["rows"]["no_behaviour"]) == (20, 2, 2)
    said = run(HEADING + ROWS + odd, as_json=False)
    assert "left out 2 rows: the lake never saw the user" in said
    assert "left out 2 rows: the user had no event yet at the row's instant" in said
    assert "tuned on 20 of 24 rows (0: 10, 1: 10)" in said


def test_more_labels_than_max_rows_are_sampled(run: Tune) -> None:
    found = run(HEADING + ROWS, "--max-rows", "18")
    assert (found["rows"]["given"], found["rows"]["used"]) == (20, 18)


REFUSED = {
    "one class only": (ROWS.replace(",1\n", ",0\n"), r"holds 1 different values"),
    "before any behaviour": (
        ROWS.replace("2017-", "2016-"),
        r"no row has any behaviour before it.*Labels follow",
    ),
    "a user twice": (ROWS + ROWS.splitlines(keepends=True)[0], "a second time at the same instant"),
    "after the clock": (ROWS + "1,2019-01-01,1\n", r"1 rows have an instant after the store's clock"),
    "fewer users than folds": ("".join(ROWS.splitlines(keepends=True)[:8]), r"with 5 users each"),
    "a key of another type": (ROWS + "x,2017-12-20,1\n", r"the value is not of type INT64"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_labels_that_cannot_be_used_are_refused(run: Tune, tmp_path: Path, fault: str) -> None:
    rows, message = REFUSED[fault]
    with pytest.raises(InputDataError, match=message):
        run(HEADING + rows)
    assert not (tmp_path / "dairy_buyer").exists()


def test_only_unknown_users_are_refused(run: Tune) -> None:
    rows = "".join(f"{70 + n},2017-12-20,{n % 2}\n" for n in range(12))
    with pytest.raises(InputDataError, match="none of the 12 rows names a user that the lake knows"):
        run(HEADING + rows)


def test_an_unknown_scenario_names_the_nearest(run: Tune) -> None:
    with pytest.raises(DeclarationError, match="Did you mean 'dairy_buyer'"):
        run(HEADING + ROWS, scenario="dairy_buyers")


def test_a_missing_column_names_those_there_are(run: Tune) -> None:
    with pytest.raises(InputDataError, match=r"has no column \['event_timestamp'\].*--timestamp-column"):
        run((HEADING + ROWS).replace("event_timestamp", "at"))
    assert run((HEADING + ROWS).replace("event_timestamp", "at"), "--timestamp-column", "at")["best_step"] > 0
