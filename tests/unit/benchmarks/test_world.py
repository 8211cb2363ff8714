"""The world's benchmark: data that stand once, figures that can be reckoned by hand, two ways that agree."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from benchmarks.results import Row
from benchmarks.world import plots
from benchmarks.world.__main__ import main
from benchmarks.world.data import Judged, judged, make_data, siblings
from benchmarks.world.declarations import ASKED, QUERIES, Place
from benchmarks.world.figures import WorldFigures
from benchmarks.world.margin import margin_rows, pooled, twin_batches
from benchmarks.world.variants import ABLATIONS, BASE, Variant, folder_name, scaling, steps
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.margin_filter import FilterQuality
from qanchor_plugin.evaluation.synthetic import SYNTHETIC_TASKS, TABLES, World, chunks
from qanchor_plugin.evaluation.synthetic.vocabulary import INTERESTS, MODALITIES


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(folder=tmp_path_factory.mktemp("world"), world=World(num_users=60, seed=5))
    make_data(made)
    return made


def test_behaviour_is_in_delta_and_labels_and_truth_are_not(place: Place) -> None:
    whole = next(chunks(place.world))
    for name in (*MODALITIES, "tabular"):
        stored = DeltaTable(str(place.raw / name)).to_pyarrow_table()
        assert stored.select(TABLES[name].names).equals(whole[name])
    assert sorted(one.name for one in place.raw.iterdir()) == sorted((*MODALITIES, "tabular"))
    assert pq.read_table(place.judging / "labels.parquet").equals(whole["labels"])


def test_what_stands_is_kept_and_another_world_refused(place: Place) -> None:
    versions = [DeltaTable(str(place.raw / name)).version() for name in MODALITIES]
    assert make_data(place)["tabular"] == 60
    assert [DeltaTable(str(place.raw / name)).version() for name in MODALITIES] == versions
    with pytest.raises(InputDataError, match="Give another --output"):
        make_data(Place(folder=place.folder, world=World(num_users=61, seed=5)))


def test_everybody_is_judged_and_twins_name_their_siblings(place: Place) -> None:
    people = judged(place)
    assert people.counts.shape == (60, 27)
    assert list(people.labels) == list(people.truth) == list(QUERIES)
    assert people.take(np.array([3, 1])).users.tolist() == [3, 1]
    expected = np.arange(60)
    expected[[19, 39, 59]] = [18, 38, 58]
    assert siblings(place).tolist() == expected.tolist()


def test_only_data_is_a_load_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only-data", "--users", "40", "--output", str(tmp_path / "w")]) == 0
    assert '"tabular": 40' in capsys.readouterr().out
    assert not (tmp_path / "w" / "lake").exists()


def test_queries_name_no_interest_of_the_generator() -> None:
    assert len(QUERIES) == len(SYNTHETIC_TASKS) == 10
    assert len(set(ASKED.values())) == 11
    hidden = {"ecology", "bargains", "investing", "borrowing", "electronics"} & set(INTERESTS)
    assert hidden
    assert not any(word in query.lower() for word in hidden for query in ASKED.values())


# --- figures by hand ---------------------------------------------------------------------------------

RIGHT = np.repeat([0.0, 1.0], 10)[:, None]
NOTHING = np.zeros((20, 1))


def by_first_column(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    return test[:, 0]


@pytest.fixture(scope="module")
def figures() -> WorldFigures:
    labels = {"one": RIGHT[:, 0] > 0, "two": RIGHT[:, 0] == 0}
    people = Judged(
        users=np.arange(20), labels=labels, truth={task: one * 1.0 for task, one in labels.items()},
        counts=NOTHING, things=NOTHING,
    )  # fmt: skip
    made = WorldFigures(people, scorer=by_first_column)
    made.add("counts", [NOTHING])
    made.add("half", [{"one": RIGHT, "two": NOTHING}])
    made.add("seeds", [{"one": RIGHT, "two": 1 - RIGHT}, {"one": -RIGHT, "two": NOTHING}])
    made.add_truth()
    return made


def test_a_figure_is_the_mean_over_tasks_and_seeds(figures: WorldFigures) -> None:
    assert figures.row("t", "counts").value == 0.5
    assert figures.row("t", "half").value == 0.75  # 1 and .5
    assert figures.row("t", "truth").value == 1.0
    row = figures.row("t", "seeds", against="counts")  # (1 + 1) / 2 and (0 + .5) / 2
    assert (row.value, row.baseline, row.n, row.seeds) == (0.625, 0.5, 20, 2)
    by_task = figures.by_task("t", ["half", "seeds"])
    assert [(one.row, one.column, one.value) for one in by_task] == [
        ("one", "half", 1.0), ("one", "seeds", 0.5), ("two", "half", 0.5), ("two", "seeds", 0.75)
    ]  # fmt: skip


def test_a_difference_is_paired(figures: WorldFigures) -> None:
    row = figures.difference("t", "half", "counts", wanted=0.03)
    assert (row.row, row.value, row.baseline, row.baseline_name) == (
        "half minus counts",
        0.25,
        0.03,
        "wanted",
    )
    # whoever is drawn, half is 1 and .5, counts .5 and .5: the difference never moves
    assert row.standard_error == pytest.approx(0.0, abs=1e-12)


def test_margin_quality_is_pooled_over_pairs() -> None:
    first = FilterQuality(precision=0.5, recall=1.0, num_removed=4, num_planted=2)
    second = FilterQuality(precision=float("nan"), recall=0.0, num_removed=0, num_planted=2)
    none = FilterQuality(precision=float("nan"), recall=float("nan"), num_removed=0, num_planted=0)
    whole = pooled([first, second, none])
    assert (whole.precision, whole.recall, whole.num_removed, whole.num_planted) == (0.5, 0.5, 4, 4)
    rows = margin_rows("t", "trained", {0.1: whole, 0.2: pooled([second])})
    assert [(row.row, row.value, row.n) for row in rows] == [
        ("trained, margin 0.1: precision", 0.5, 4),
        ("trained, margin 0.1: recall", 0.5, 4),
        ("trained, margin 0.2: recall", 0.0, 2),
    ]


def test_a_twin_stands_in_the_batch_of_its_sibling(place: Place) -> None:
    sibling = siblings(place)
    batches = twin_batches(sibling, size=20, most=2)
    assert [batch[0] for batch in batches] == [0, 20]
    for batch in batches:
        assert set(sibling[batch]) <= set(batch.tolist())


def test_every_variant_has_a_folder_of_its_own_and_the_curves_end_at_the_base() -> None:
    assert scaling()[-1] == steps(300)[-1] == Variant(name=BASE)
    assert [one.train.get("steps") for one in steps(200)] == [25, 50, 100, None]
    variants = [Variant(name=BASE), *ABLATIONS, *scaling()[:-1], *steps(200)[:-1]]
    folders = {folder_name(one, seed) for one in variants for seed in (0, 1)}
    assert len(folders) == 2 * len(variants)


def test_pictures_are_drawn(tmp_path: Path) -> None:
    rows = [
        Row(table="t", row=f"r{n}", value=0.7 + n / 100, unit="AUC", n=5, standard_error=0.01,
            baseline=0.1 * n or None, command="c", machine="m")
        for n in range(3)
    ]  # fmt: skip
    plots.scaling_picture(
        tmp_path / "a.png", [("users", [1, 2, 3], rows), ("steps", [1, 2, 3], rows)], rows[0]
    )
    plots.ablation_picture(tmp_path / "b.png", rows)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("a.png", "b.png"))
