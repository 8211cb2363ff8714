"""The Journey's evaluation: what is asked, which tables come out, how they become results."""

import json
import subprocess
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from benchmarks import results
from feast_repo.evaluation.__main__ import arguments
from feast_repo.evaluation.full import SWEPT
from feast_repo.evaluation.paraphrases import FIXED_QUERY, PARAPHRASES
from feast_repo.evaluation.questions import by_kind, questions, right_queries, wrong_task
from feast_repo.evaluation.results import keep_tables
from feast_repo.evaluation.story import _add_engines
from feast_repo.evaluation.study import (
    FIXED,
    REWORDED,
    RIGHT,
    WITH_ALL_COUNTS,
    WITH_COUNTS,
    WRONG,
    Study,
)
from feast_repo.evaluation.tables import SHIPPED, UNTRAINED, Engines, named_for, readme_tables
from feast_repo.evaluation.training import Trainings, keep_share, linked_lake, user_number
from feast_repo.evaluation.tuned import fold_ranks
from qanchor_plugin.evaluation.baselines import Baseline
from qanchor_plugin.evaluation.comparison import Comparison
from qanchor_plugin.evaluation.folds import fixed_folds
from qanchor_plugin.evaluation.journey import Journey
from qanchor_plugin.evaluation.report.tables import Figure, Table
from qanchor_plugin.evaluation.runs import ProbeRuns
from qanchor_plugin.evaluation.tasks import FINAL_CUT, SELECTION_CUT, TASKS, Cut, TaskTable

RNG = np.random.default_rng(2)
LABELS = {task: np.random.default_rng(place).random(90) < 0.4 for place, task in enumerate(TASKS)}
SKIPPED = "CoLES 128-d, LR"


def test_43_different_questions_are_asked() -> None:
    asked = questions()
    assert len(asked) == len(set(asked.values())) == 7 + 35 + 1
    assert list(asked)[:7] == list(TASKS)
    assert asked["fixed"] == FIXED_QUERY
    assert asked["pet_5"] == PARAPHRASES["pet"][4]
    assert right_queries()["beer"] == "Will this household buy beer or ale?"


def test_the_wrong_query_is_the_next_tasks() -> None:
    assert wrong_task("redeem") == "no_purchase"
    assert wrong_task("beer") == "redeem"
    vectors = {name: np.full((3, 2), place, np.float32) for place, name in enumerate(questions())}
    kinds = by_kind(vectors)
    assert list(kinds) == ["right", "wrong", "fixed", *[f"wording {n}" for n in range(1, 6)]]
    assert kinds["wrong"]["beer"] is vectors["redeem"]
    assert kinds["fixed"]["pet"] is vectors["fixed"]
    assert kinds["wording 3"]["pet"] is vectors["pet_3"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Ranks of two seeds, the untrained engine and one baseline; nothing is probed."""
    made = Study(root=tmp_path_factory.mktemp("root"), work=Path("unused"), cut=SELECTION_CUT)
    made.tasks = TaskTable(households=np.arange(90), labels=LABELS)
    made.found = Comparison(LABELS, repeats=(0,))
    for name in ("untrained", "trained, seed 0", "trained, seed 1"):
        for kind in (RIGHT, WRONG, FIXED, REWORDED, WITH_COUNTS, WITH_ALL_COUNTS):
            strength = {RIGHT: 2.0, WITH_COUNTS: 3.0}.get(kind, 0.5)
            made.found.add_ranks(f"{name}, {kind}", _ranks(strength))
    made.found.add_ranks("counts, LR", _ranks(1.0))
    made.skipped[SKIPPED] = "not run: python -m benchmarks.coles.run"
    return made


def _ranks(strength: float) -> dict[str, np.ndarray]:
    return {task: (strength * labels + RNG.normal(size=90))[None] for task, labels in LABELS.items()}


def test_the_readmes_tables(study: Study) -> None:
    engines = Engines(seeds=("trained, seed 0", "trained, seed 1"))
    tables = {
        table.name: table for table in readme_tables(study, ["counts, LR", SKIPPED], engines, "make evaluate")
    }
    assert list(tables) == [
        f"quality-{name}" for name in ("auc", "ks", "gains", "queries", "query-gains", "seeds")
    ]
    auc = dict(tables["quality-auc"].rows)
    assert list(auc) == [
        SKIPPED, "counts, LR", "untrained engine, right", "trained engine, right",
        "untrained engine, right and counts", "trained engine, right and counts",
    ]  # fmt: skip
    assert auc[SKIPPED][0] == "not run: python -m benchmarks.coles.run"
    trained = auc["trained engine, right"][-1]
    assert isinstance(trained, Figure)
    assert (trained.num_seeds, trained.num_users) == (2, 90)
    seeds = [cells[-1].value for _, cells in tables["quality-seeds"].rows]
    assert trained.value == pytest.approx(np.mean(seeds))
    gains = dict(tables["quality-gains"].rows)
    everything = "trained engine, right, counts and 178 categories - trained engine, right"
    assert list(gains) == [
        "trained engine, right - counts, LR", "trained engine, right - untrained", everything,
    ]  # fmt: skip
    assert gains["trained engine, right - counts, LR"][-1].value == pytest.approx(
        trained.value - auc["counts, LR"][-1].value
    )
    asked = dict(tables["quality-query-gains"].rows)
    assert "trained engine, right - wrong" in asked
    assert len(tables["quality-queries"].rows) == 4 * 2


def test_without_a_training_the_untrained_engine_stands_alone(study: Study) -> None:
    tables = readme_tables(study, ["counts, LR"], Engines(seeds=()), "c")
    assert "quality-seeds" not in {table.name for table in tables}
    assert [name for name, _ in tables[2].rows] == [
        "untrained engine, right - counts, LR",
        "untrained engine, right, counts and 178 categories - untrained engine, right",
    ]


def test_tables_become_results_and_results_a_grid(study: Study, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    engines = Engines(seeds=("trained, seed 0", "trained, seed 1"))
    keep_tables(readme_tables(study, ["counts, LR", SKIPPED], engines, "make evaluate"))
    written = (tmp_path / "quality.json").read_text()
    assert all("null" not in line for line in written.splitlines())
    json.loads(written)
    rows = [row for row in results.load(tmp_path / "quality.json") if row.table == "quality-auc"]
    shown = results.table_of(rows)
    assert "| | " + " | ".join([*TASKS, "mean"]) + " |" in shown
    assert f"| {SKIPPED} | not run: python -m benchmarks.coles.run |  |" in shown
    trained = next(row for row in rows if row.row == "trained engine, right" and row.column == "mean")
    assert f"{trained.value:.3f} ± {trained.standard_error:.3f} |" in shown
    assert (
        "n = 90; ± is one standard error over bootstrapped users; trained rows are the mean of 2 seeds"
        in shown
    )
    assert "Measured by `make evaluate` on" in shown


def test_each_fold_is_scored_from_its_own_prompt() -> None:
    labels = LABELS["pet"]
    folds = fixed_folds(labels, repeats=(0,), num_folds=3)[0]
    knows = np.where(labels, 1.0, -1.0)[:, None] + 0.1 * RNG.normal(size=(90, 1))
    noise = RNG.normal(size=(90, 1))
    ranks = fold_ranks([knows, noise, noise], labels, folds)
    assert ranks.shape == (1, 90)
    assert np.isfinite(ranks).all()
    test = folds[0][1]
    assert ranks[0, test][labels[test]].min() > ranks[0, test][~labels[test]].max()
    other = folds[1][1]
    assert ranks[0, other][labels[other]].min() < ranks[0, other][~labels[other]].max()


def test_a_study_of_some_tasks_has_the_same_labels() -> None:
    root = Path(__file__).resolve().parents[3]
    whole = Study(root=root, work=Path("unused"), cut=SELECTION_CUT, num_households=300).tasks
    some = Study(root=root, work=Path("unused"), cut=SELECTION_CUT, num_households=300, only=SWEPT).tasks
    assert list(some.labels) == list(SWEPT)
    assert all((some.labels[task] == whole.labels[task]).all() for task in SWEPT)


def test_full_shows_soft_prompts_too() -> None:
    assert not arguments([]).tuned
    assert arguments(["--tuned"]).tuned
    assert arguments(["--full"]).tuned


def test_a_lake_of_pairs_shows_the_stores_tables_and_writes_its_own(tmp_path: Path) -> None:
    lake, own = tmp_path / "lake", tmp_path / "own"
    for name in ("behaviour_sequences", "useru_pairs", "job_runs"):
        (lake / name).mkdir(parents=True)
    (lake / "behaviour_sequences" / "part").write_text("rows")
    linked_lake(lake, own)
    assert (own / "behaviour_sequences" / "part").read_text() == "rows"
    assert not (own / "useru_pairs").exists()
    assert not (own / "job_runs").exists()
    linked_lake(lake, own)
    assert (lake / "behaviour_sequences" / "part").exists()


def test_a_share_of_users_keeps_the_held_out_and_holds_the_smaller_share(tmp_path: Path) -> None:
    users = [b"%d" % number for number in range(200)]
    rows = pa.table({"user": users * 2, "held_out": ([True] * 20 + [False] * 180) * 2, "shard": [0] * 400})
    kept = {}
    for share in (0.3, 0.6):
        write_deltalake(tmp_path / f"{share}", rows, partition_by=["shard"])
        keep_share(tmp_path / f"{share}", share)
        left = DeltaTable(tmp_path / f"{share}").to_pyarrow_table()
        kept[share] = set(left["user"].to_pylist())
        expected = {one for one in users[20:] if user_number(one) < share} | set(users[:20])
        assert kept[share] == expected
        assert len(left) == 2 * len(expected)
    assert kept[0.3] < kept[0.6]
    assert 60 < len(kept[0.3]) < 100


def test_tables_of_the_selection_cut_do_not_take_the_names_that_readme_shows() -> None:
    table = Table(name="quality-auc", title="AUC", columns=("mean",), rows=(), command="make evaluate")
    assert [one.name for one in named_for("final", [table])] == ["quality-auc"]
    assert [one.name for one in named_for("selection", [table])] == ["quality-auc-selection"]
    assert arguments([]).cut == "final"


@pytest.mark.parametrize(("cut", "asked"), [(FINAL_CUT, [UNTRAINED, SHIPPED]), (SELECTION_CUT, [UNTRAINED])])
def test_weights_trained_up_to_the_final_cut_are_not_scored_before_it(
    cut: Cut, asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Trainings, "untrained", lambda self: tmp_path)
    beside = {}
    monkeypatch.setattr(
        Study, "add_engine", lambda self, name, engine, *, all_counts: beside.update({name: all_counts}) or {}
    )
    study = Study(root=tmp_path, work=tmp_path, cut=cut)
    folders, vectors = _add_engines(study, Trainings(root=tmp_path, cut=cut), [])
    assert list(folders) == list(vectors) == asked
    assert [name for name, all_counts in beside.items() if all_counts] == [UNTRAINED]  # nothing was trained


@pytest.fixture
def two_households(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Study:
    """A study of households 1 and 2 without hand-made baselines."""
    monkeypatch.setattr("feast_repo.evaluation.study.hand_made_baselines", lambda *_: {})
    study = Study(root=tmp_path, work=tmp_path, cut=FINAL_CUT)
    study.journey = Journey(**{one.name: pd.DataFrame() for one in fields(Journey)})
    study.tasks = TaskTable(households=np.array([1, 2]), labels={})
    study.found = Comparison(LABELS, repeats=(0,))
    return study


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> dict[str, Baseline]:
    """What was to be probed."""
    models: dict[str, Baseline] = {}
    monkeypatch.setattr(ProbeRuns, "add", lambda self, more: models.update(more))
    return models


def test_coles_is_made_where_it_is_absent(
    two_households: Study, added: dict[str, Baseline], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(journey: object, cut: object, output: Path, *, environment: Path) -> None:
        output.parent.mkdir()
        np.savez(output, household_id=[2, 1, 3], vectors=np.eye(3, dtype=np.float32))

    monkeypatch.setattr("feast_repo.evaluation.study.make_vectors", made)
    assert two_households.add_baselines(texts=False) == [SKIPPED]
    np.testing.assert_array_equal(added[SKIPPED].features, [[0, 1, 0], [1, 0, 0]])
    assert two_households.skipped == {}


def test_coles_that_fails_is_named_with_its_command_and_the_others_go_on(
    two_households: Study, added: dict[str, Baseline], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, ["pip", "install"])

    said: list[str] = []
    two_households.say = said.append
    monkeypatch.setattr("feast_repo.evaluation.study.make_vectors", no_network)
    assert two_households.add_baselines(texts=False) == [SKIPPED]
    assert added == {}
    assert "--cut 2017-09-01" in two_households.skipped[SKIPPED]
    assert "pip" in said[-1]


def test_coles_can_be_left_out(two_households: Study, added: dict[str, Baseline]) -> None:
    assert two_households.add_baselines(texts=False, coles=False) == list(two_households.skipped) == [SKIPPED]
    assert added == {}
