"""Probes on every core, remembered; texts encoded once; the ranks are those of the plain way."""

from pathlib import Path

import numpy as np
import pytest

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.baselines import Baseline
from qanchor_plugin.evaluation.comparison import Comparison
from qanchor_plugin.evaluation.encoded_texts import remembered
from qanchor_plugin.evaluation.runs import ProbeRuns

RNG = np.random.default_rng(11)
LABELS = RNG.random(120) < 0.4
SIGNAL = np.column_stack([LABELS + RNG.normal(size=120), RNG.normal(size=120)])


def _comparison() -> Comparison:
    return Comparison({"one": LABELS, "two": ~LABELS}, repeats=(0,), num_folds=3)


def test_ranks_are_those_of_the_comparison_itself_and_are_remembered(tmp_path: Path) -> None:
    plain, said = _comparison(), []
    plain.add("signal", SIGNAL)
    found = _comparison()
    runs = ProbeRuns(found, tmp_path, processes=1, say=said.append)
    runs.add({"signal": Baseline(features=SIGNAL)})
    assert found.estimate("signal") == plain.estimate("signal")
    assert said == ["probed signal"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(written) == 2
    again = _comparison()
    ProbeRuns(again, tmp_path, processes=1, say=said.append).add({"another name": Baseline(features=SIGNAL)})
    assert again.estimate("another name") == plain.estimate("signal")
    assert said == ["probed signal"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_rows_of_users_are_probed_as_the_comparison_does(tmp_path: Path) -> None:
    random, users = np.random.default_rng(4), np.repeat(np.arange(40), 6)
    labels = (random.random(40) < 0.5)[users]
    told = random.normal(size=(40, 12))[users] + 0.1 * random.normal(size=(240, 12)) + 0.3 * labels[:, None]
    plain, found = (Comparison({"one": labels}, users=users, repeats=(0,)) for _ in range(2))
    plain.add("told", told)
    ProbeRuns(found, tmp_path, processes=1, say=lambda _: None).add({"told": Baseline(features=told)})
    assert found.estimate("told") == plain.estimate("told")


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    runs = ProbeRuns(_comparison(), tmp_path, processes=1, say=lambda _: None)
    runs.add({"signal": Baseline(features=SIGNAL)})
    first, second = sorted(tmp_path.iterdir())
    kept = first.stat().st_mtime_ns
    second.unlink()
    (tmp_path / "half.123.part").write_bytes(b"cut off")
    runs.add({"signal": Baseline(features=SIGNAL)})
    assert second.exists()
    assert first.stat().st_mtime_ns == kept


def test_other_features_labels_or_folds_are_other_ranks(tmp_path: Path) -> None:
    one = Baseline(features=SIGNAL)
    ProbeRuns(_comparison(), tmp_path, processes=1, say=lambda _: None).add({"s": one})
    for changed, model in (
        (_comparison(), Baseline(features=SIGNAL + 1)),
        (Comparison({"one": LABELS, "two": ~LABELS}, repeats=(1,), num_folds=3), one),
        (Comparison({"one": np.roll(LABELS, 1), "two": LABELS}, repeats=(0,), num_folds=3), one),
    ):
        before = len(list(tmp_path.iterdir()))
        ProbeRuns(changed, tmp_path, processes=1, say=lambda _: None).add({"s": model})
        assert len(list(tmp_path.iterdir())) > before


def test_a_fault_in_a_model_is_told_and_nothing_is_kept_of_it(tmp_path: Path) -> None:
    runs = ProbeRuns(_comparison(), tmp_path, processes=1, say=lambda _: None)
    with pytest.raises(InputDataError, match="hold NaN"):
        runs.add({"broken": Baseline(features=np.full((120, 2), np.nan))})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_several_processes_give_the_same_ranks(tmp_path: Path) -> None:
    alone, together = _comparison(), _comparison()
    models = {"signal": Baseline(features=SIGNAL), "noise": Baseline(features=RNG.normal(size=(120, 3)))}
    ProbeRuns(alone, tmp_path / "a", processes=1, say=lambda _: None).add(models)
    ProbeRuns(together, tmp_path / "b", processes=2, say=lambda _: None).add(models)
    for name in models:
        assert together.estimate(name, metric="ks") == alone.estimate(name, metric="ks")


def test_texts_are_encoded_once(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def make():
        def encode(texts):
            asked.append(list(texts))
            return np.array([[len(text), text.count("a")] for text in texts], np.float64)

        return encode

    say: list[str] = []
    first = remembered(make, tmp_path / "encoder", say=say.append)(["a", "bb", "a"])
    assert first.tolist() == [[1, 1], [2, 0], [1, 1]]
    second = remembered(make, tmp_path / "encoder", say=say.append)(["bb", "ccc"])
    assert second.tolist() == [[2, 0], [3, 0]]
    assert asked == [["a", "bb"], ["ccc"]]
    assert say == ["encoded 2 of 2 texts", "encoded 1 of 1 texts"]


def test_nothing_new_loads_no_encoder(tmp_path: Path) -> None:
    remembered(lambda: lambda texts: np.ones((len(texts), 2)), tmp_path, say=lambda _: None)(["a"])

    def never():
        raise AssertionError("every text is known")

    assert remembered(never, tmp_path)(["a"]).tolist() == [[1, 1]]
