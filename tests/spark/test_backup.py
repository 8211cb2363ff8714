"""Backup and restore: the same rows and registry, digests checked, nothing replaced unasked."""

import shutil
from pathlib import Path

import pytest

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.engine.event_vectors import VectorSnapshot
from qanchor_plugin.errors import JobBusyError, LakeError
from qanchor_plugin.prefix_store import LakeTables
from spark_jobs.backup import backup, read_backup, restore
from spark_jobs.forget import forget, forget_again
from spark_jobs.layout import LAYOUT, write_layout
from spark_jobs.lock import only_run
from spark_jobs.maintain import MaintainPlan, maintain
from tests.shop import user
from tests.spark.raw_bytes import forms, found_in
from tests.spark.small_lakes import ENCODER, fill, plain_lake

KEY = '{"household_id": 1}'


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store's folder: a lake and a registry."""
    lake = plain_lake(tmp_path / "lake")
    for household in (1, 2):
        fill(lake.folder, "scenario_embeddings", household)
    lake.complete("dairy", "0" * 32, "2017-12-30")
    write_layout(lake.folder, LAYOUT)
    (tmp_path / "registry.db").write_bytes(b"what feast apply wrote")
    return tmp_path


def settings_of(store: Path) -> Settings:
    return Settings(lake=str(store / "lake"))


def beside(store: Path) -> dict[str, Path]:
    return {"registry": store / "registry.db"}


def rows(store: Path) -> dict[str, list[str]]:
    tables = LakeTables(str(store / "lake"), max_age_seconds=0)
    return {
        name: sorted(map(repr, tables.read(name).to_pylist())) for name in S.TABLES if tables.exists(name)
    }


def test_a_lost_store_comes_back_row_by_row(store: Path) -> None:
    before = rows(store)
    made = backup(settings_of(store), store / "kept", beside(store))
    assert made.tables["behaviour_sequences"] == 2
    shutil.rmtree(store / "lake")
    (store / "registry.db").unlink()
    restore(settings_of(store), store / "kept", beside(store), yes=False)
    assert rows(store) == before
    assert (store / "registry.db").read_bytes() == b"what feast apply wrote"
    assert VectorSnapshot.open(store / "lake" / "_vectors" / ENCODER).num_texts == 8
    fill(store / "lake", "scenario_embeddings", 3)  # and it can be written again


def test_what_came_after_the_backup_is_not_in_it(store: Path) -> None:
    before = rows(store)
    maintain(settings_of(store), MaintainPlan(min_files=2))
    folded = rows(store)
    backup(settings_of(store), store / "kept", beside(store))
    fill(store / "lake", "scenario_embeddings", 3)
    (store / "registry.db").write_bytes(b"a later apply")
    restore(settings_of(store), store / "kept", beside(store), yes=True)
    assert rows(store) == folded
    assert len(folded["scenario_embeddings"]) == len(before["scenario_embeddings"])
    assert (store / "registry.db").read_bytes() == b"what feast apply wrote"


def test_nothing_is_replaced_unasked(store: Path) -> None:
    backup(settings_of(store), store / "kept", beside(store))
    before = rows(store)
    with pytest.raises(LakeError, match=r"lake.*registry\.db.*would be replaced.*--yes"):
        restore(settings_of(store), store / "kept", beside(store), yes=False)
    with pytest.raises(LakeError, match="is there already"):
        backup(settings_of(store), store / "kept", beside(store))
    assert rows(store) == before


@pytest.mark.parametrize("harm", ["altered", "absent"])
def test_a_harmed_backup_is_refused_before_anything_is_touched(store: Path, harm: str) -> None:
    made = backup(settings_of(store), store / "kept", beside(store))
    name = next(one for one in made.files if one.endswith(".parquet"))
    path = store / "kept" / name
    path.unlink() if harm == "absent" else path.write_bytes(path.read_bytes()[:-1] + b"X")
    before = rows(store)
    with pytest.raises(LakeError, match=r"1 files of backup .* are absent or altered"):
        restore(settings_of(store), store / "kept", beside(store), yes=True)
    assert rows(store) == before


def test_a_backup_of_a_later_layout_and_no_backup_are_refused(store: Path) -> None:
    write_layout(store / "lake", LAYOUT)
    backup(settings_of(store), store / "kept")
    manifest = store / "kept" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"layout": {LAYOUT}', f'"layout": {LAYOUT + 1}'))
    with pytest.raises(LakeError, match=f"has layout {LAYOUT + 1}"):
        read_backup(store / "kept")
    with pytest.raises(LakeError, match="is no backup"):
        read_backup(store)


def test_neither_goes_on_under_a_run(store: Path) -> None:
    backup(settings_of(store), store / "kept", beside(store))
    with only_run(store / "lake", "a refresh"):
        with pytest.raises(JobBusyError):
            backup(settings_of(store), store / "another", beside(store))
        with pytest.raises(JobBusyError):
            restore(settings_of(store), store / "kept", beside(store), yes=True)
    assert not (store / "another").exists()


def test_a_user_forgotten_since_the_backup_is_forgotten_again(store: Path) -> None:
    backup(settings_of(store), store / "kept", beside(store))
    forget(settings_of(store), {user(1): KEY})
    restore(settings_of(store), store / "kept", beside(store), yes=True)
    needles = forms(user(1), KEY, ["rye bread"])
    assert found_in(store / "lake", needles)
    assert forget_again(settings_of(store)) == 1
    assert found_in(store / "lake", needles) == {}
    assert forget_again(settings_of(store)) == 0
