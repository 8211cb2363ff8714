"""Figures in pages are rows of results/, and nothing else."""

from benchmarks import results
from benchmarks.results import Row, rendered, table_of, with_demo_output

ROW = Row(table="t", row="slope", value=1.5, unit="s", command="make bench", machine="m, 2 cores")


def test_every_page_shows_what_the_results_say() -> None:
    assert results.main(["--check"]) == 0


def test_a_block_is_filled_and_a_stale_one_replaced() -> None:
    text = "before\n<!-- results: t -->\nold\n<!-- /results -->\nafter"
    fresh = rendered(text, [ROW])
    assert "old" not in fresh
    assert "| slope | 1.5 s |" in fresh
    assert rendered(fresh, [ROW]) == fresh


def test_a_table_nobody_measured_says_so() -> None:
    shown = rendered("<!-- results: u -->\n| made up | 1 |\n<!-- /results -->", [ROW])
    assert shown == "<!-- results: u -->\nNot measured yet: run `make bench`.\n<!-- /results -->"


def test_ratio_n_and_standard_error_stand_beside_the_figure() -> None:
    row = Row(
        table="t", row="AUC", value=0.77, unit="", baseline=0.7, baseline_name="counts", ratio=1.1, n=1949,
        standard_error=0.007, command="make evaluate", machine="m",
    )  # fmt: skip
    assert "| AUC | 0.77 ± 0.007 | 0.7  (counts) | 1.10x | 1,949 |" in table_of([row])


def test_rows_of_other_tables_are_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    other = Row(**{**ROW.__dict__, "table": "u"})
    results.keep("performance", [ROW, other])
    path = results.keep("performance", [Row(**{**ROW.__dict__, "value": 2.0})])
    assert {(row.table, row.value) for row in results.load(path)} == {("u", 1.5), ("t", 2.0)}


def test_the_demo_block_shows_what_the_demo_printed() -> None:
    text = "a\n<!-- demo output -->\nold\n<!-- /demo output -->\nb"
    fresh = with_demo_output(text, "\n1/8 Load \\d  5 s  \n")
    assert fresh == "a\n<!-- demo output -->\n```\n1/8 Load \\d  5 s\n```\n<!-- /demo output -->\nb"
    assert with_demo_output(fresh, "1/8 Load \\d  5 s") == fresh
