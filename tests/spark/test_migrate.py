"""From the first released layout to the present one, and refusal of those to come."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import LakeError
from qanchor_plugin.prefix_store import LakeTables
from spark_jobs.layout import LAYOUT, LAYOUT_FILE, layout_of, write_layout
from spark_jobs.maintain import maintain
from spark_jobs.migrate import MIGRATIONS, Migration, migrate, ready_for_jobs
from tests.frozen.layout_1 import TABLES, write_layout_1


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A lake of release 0.1.0."""
    write_layout_1(tmp_path / "lake")
    return tmp_path / "lake"


def settings_of(lake: Path) -> Settings:
    return Settings(lake=str(lake))


def rows(lake: Path) -> dict[str, list[dict[str, Any]]]:
    tables = LakeTables(str(lake), max_age_seconds=0)
    return {name: tables.read(name, columns=[one for one, _ in TABLES[name]]).to_pylist() for name in TABLES}


def test_the_first_release_becomes_the_present_layout_with_its_rows(old: Path) -> None:
    before = rows(old)
    told = migrate(settings_of(old))
    assert (told.before, told.after, layout_of(old)) == (1, LAYOUT, LAYOUT)
    for name in TABLES:
        stands = DeltaTable(old / name).to_pyarrow_dataset().schema
        assert set(stands.names) == set(S.TABLES[name].names)
        pa.schema([stands.field(one.name) for one in S.TABLES[name]]).empty_table().cast(S.TABLES[name])
    assert {name: found for name, found in rows(old).items() if name != "job_runs"} == {
        name: found for name, found in before.items() if name != "job_runs"
    }
    assert [row["job"] for row in rows(old)["job_runs"]] in (["x", "migrate"], ["migrate", "x"])


def test_a_second_run_does_nothing(old: Path) -> None:
    migrate(settings_of(old))
    versions = {name: DeltaTable(old / name).version() for name in TABLES}
    again = migrate(settings_of(old))
    assert (again.before, again.after, again.steps) == (LAYOUT, LAYOUT, {})
    assert {name: DeltaTable(old / name).version() for name in TABLES} == versions


def test_jobs_bring_an_old_lake_up_to_date_where_nothing_is_rewritten(old: Path) -> None:
    ready_for_jobs(settings_of(old))
    assert layout_of(old) == LAYOUT


def test_a_newer_lake_is_refused_by_every_job(old: Path) -> None:
    write_layout(old, LAYOUT + 1)
    for job in (migrate, maintain, ready_for_jobs):
        with pytest.raises(LakeError, match=rf"has layout {LAYOUT + 1}; this version.* knows layouts 1 to"):
            job(settings_of(old))  # type: ignore[operator]


def test_a_lake_that_does_not_say_is_refused(old: Path) -> None:
    (old / LAYOUT_FILE).write_text("layout two")
    with pytest.raises(LakeError, match="does not say the lake's layout"):
        migrate(settings_of(old))


def test_a_step_that_fails_leaves_the_layout_and_is_taken_again(old: Path) -> None:
    calls: list[Path] = []

    def torn(folder: Path) -> Mapping[str, Any]:
        calls.append(folder)
        if len(calls) == 1:
            raise LakeError("the disk is full")
        return {"job_runs": ["more"]}

    steps = [*MIGRATIONS, Migration(to=LAYOUT + 1, why="more", run=torn)]
    with pytest.raises(LakeError, match="full"):
        migrate(settings_of(old), steps=steps)
    assert layout_of(old) == LAYOUT
    told = migrate(settings_of(old), steps=steps)
    assert (told.before, told.after) == (LAYOUT, LAYOUT + 1)
    assert told.steps == {f"{LAYOUT + 1}: more": {"job_runs": ["more"]}}
    assert json.loads((old / LAYOUT_FILE).read_text()) == {"layout": LAYOUT + 1}


def test_jobs_leave_a_step_that_rewrites_to_the_operator(old: Path) -> None:
    def never(folder: Path) -> Mapping[str, Any]:
        raise AssertionError("a job rewrote the lake by itself")

    steps = [*MIGRATIONS, Migration(to=LAYOUT + 1, why="files anew", run=never, rewrites=True)]
    told = migrate(settings_of(old), steps=steps, without_rewriting=True)
    assert told.after == LAYOUT
