"""Tables, pictures and the page, from figures whose truth is known."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.comparison import Comparison
from qanchor_plugin.evaluation.report.page import Picture, behind, table_html, write_report
from qanchor_plugin.evaluation.report.plots import (
    Curve,
    Panel,
    attention_shift,
    embedding_maps,
    scaling_curves,
    score_bars,
)
from qanchor_plugin.evaluation.report.tables import (
    Figure,
    Model,
    Table,
    difference,
    differences,
    score,
    scores,
)

RNG = np.random.default_rng(3)
LABELS = RNG.random(300) < 0.3
FIGURE = Figure(value=0.7731, standard_error=0.0071, num_users=1949, num_seeds=3, spread=0.0004)
HOSTILE = '<script>alert("a & b")</script>'


@pytest.fixture(scope="module")
def found() -> Comparison:
    """Four models by ranks of their own: two seeds of a good one, a poor one, and one that knows all."""
    comparison = Comparison({"one": LABELS, "two": ~LABELS}, repeats=(0,))
    for name, strength in (("seed 0", 2.0), ("seed 1", 1.0), ("poor", 0.0), ("knows", 100.0)):
        ranks = {
            task: (strength * labels + RNG.normal(size=300))[None]
            for task, labels in comparison.labels.items()
        }
        comparison.add_ranks(name, ranks)
    return comparison


GOOD = Model(name="good", members=("seed 0", "seed 1"), trained=True)


def test_a_row_of_seeds_is_their_mean_and_their_spread(found: Comparison) -> None:
    first, second = (found.estimate(name, "one").value for name in GOOD.members)
    figure = score(found, GOOD, "one")
    assert figure.value == pytest.approx((first + second) / 2)
    assert figure.spread == pytest.approx(abs(first - second) / np.sqrt(2))  # deviation of two, ddof 1
    assert (figure.num_users, figure.num_seeds) == (300, 2)
    alone = score(found, Model.one("knows"), "two")
    assert (alone.value, alone.standard_error, alone.num_seeds, alone.spread) == (1.0, 0.0, 0, None)


def test_the_mean_of_models_keeps_differences_paired(found: Comparison) -> None:
    gain = difference(found, GOOD, Model.one("poor"))
    each = [found.difference(name, "poor") for name in GOOD.members]
    assert gain.value == pytest.approx(np.mean([one.value for one in each]))
    assert 0 < gain.standard_error <= max(one.standard_error for one in each)
    assert difference(found, GOOD, GOOD).standard_error == 0.0
    with pytest.raises(InputDataError, match=r"\['absent'\] are not among"):
        found.add_mean("nobody", ["seed 0", "absent"])


def test_tables_have_a_column_a_task_and_their_mean(found: Comparison) -> None:
    table = scores(found, [GOOD, Model.one("poor")], name="auc", title="AUC", command="make evaluate")
    assert table.columns == ("one", "two", "mean")
    assert [name for name, _ in table.rows] == ["good", "poor"]
    cells = [cell for cell in table.rows[0][1] if isinstance(cell, Figure)]
    assert cells[2].value == pytest.approx((cells[0].value + cells[1].value) / 2)
    minus = differences(
        found, {"good - poor": (GOOD, Model.one("poor"))}, name="d", title="d", command="c", metric="ks"
    )
    assert minus.signed
    assert isinstance(minus.rows[0][1][2], Figure)


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(InputDataError, match=r"rows \['r'\] do not have 2 cells"):
        Table(name="t", title="t", columns=("a", "b"), rows=(("r", (FIGURE,)),), command="c")


def _is_drawn(path: Path) -> None:
    """A picture of our size limit whose pixels differ."""
    assert path.stat().st_size < 150_000
    with Image.open(path) as image:
        assert image.width > 300
        assert np.asarray(image.convert("L"), np.float64).std() > 5


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_maps_are_drawn(tmp_path: Path, method: str) -> None:
    vectors = RNG.normal(size=(120, 16)) + 3 * LABELS[:120, None]
    panels = [
        Panel(title=f"{when} tuning", vectors=vectors, labels=LABELS[:120]) for when in ("before", "after")
    ]
    _is_drawn(embedding_maps(tmp_path / "maps.png", panels, method=method, positive="pet"))


def test_bars_curves_and_attention_are_drawn(tmp_path: Path) -> None:
    poor = Figure(value=0.5, standard_error=0.02, num_users=1949)
    _is_drawn(
        score_bars(
            tmp_path / "bars.png", {"trained": FIGURE, "counts": poor}, quantity="AUC", chosen=["trained"]
        )
    )
    curve = Curve(name="share of users", amounts=[0.25, 1.0], figures=[poor, FIGURE])
    _is_drawn(scaling_curves(tmp_path / "scaling.png", [curve], amount="share of users", quantity="mean AUC"))
    shares = {"before": {"purchases": 0.75, "campaigns": 0.25}, "after": {"purchases": 0.5, "campaigns": 0.5}}
    _is_drawn(attention_shift(tmp_path / "attention.png", shares, title="pet"))


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match="by method 'umap'"):
        embedding_maps(
            tmp_path / "x.png",
            [Panel(title="t", vectors=np.eye(4), labels=LABELS[:4])],
            method="umap",
            positive="p",
        )
    with pytest.raises(InputDataError, match="with a figure for each amount"):
        scaling_curves(
            tmp_path / "x.png", [Curve(name="c", amounts=[1, 2], figures=[FIGURE])], amount="a", quantity="q"
        )
    with pytest.raises(InputDataError, match="no row to draw"):
        score_bars(tmp_path / "x.png", {}, quantity="AUC")


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    rows = ((HOSTILE, (FIGURE,)), ("CoLES", ("not run",)))
    gain = (("a", (FIGURE,)),)
    tables = [
        Table(name="auc", title="AUC", columns=("pet",), rows=rows, command="make evaluate"),
        Table(name="gain", title="Gain", columns=(HOSTILE,), rows=gain, command="python -m x", signed=True),
    ]
    picture = score_bars(tmp_path / "bars.png", {"a": FIGURE}, quantity="AUC")
    page = write_report(
        tmp_path / "new" / "report.html",
        HOSTILE,
        notes=["Cut 2017-06-01."],
        tables=tables,
        pictures=[Picture(path=picture, caption=HOSTILE)],
    ).read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert {f'<h2 id="{table.name}">' in page for table in tables} == {True}
    assert "0.773<small>± 0.007, seeds ± 0.000</small>" in page
    assert "+0.773" in page
    assert "not run" in page
    assert "<code>make evaluate</code>" in page
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []


def test_what_stands_behind_a_table_is_said() -> None:
    table = Table(name="t", title="t", columns=("a",), rows=(("r", (FIGURE,)),), command="c")
    assert behind(table).startswith("n = 1,949; ± is the standard error")
    assert "mean of 3 seeds, with the standard deviation over seeds" in behind(table)
    empty = Table(name="t", title="t", columns=("a",), rows=(("r", ("not run",)),), command="c")
    assert "No figure yet." in table_html(empty)


def test_a_report_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputDataError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", "t", notes=[], tables=[])
    missing = Picture(path=tmp_path / "absent.png", caption="c")
    with pytest.raises(InputDataError, match="cannot be read"):
        write_report(tmp_path / "report.html", "t", notes=[], tables=[], pictures=[missing])
