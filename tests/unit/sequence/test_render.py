"""Rows as text, by hand."""

import pyarrow as pa
import pytest

from qanchor_plugin.sequence.render import MAX_TEXT_CHARS, render_group, render_text, render_texts


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{brand} {product}", {"brand": "Private", "product": "BREAD"}, "Private BREAD"),
        ("{brand} {product}", {"brand": None, "product": "BREAD"}, "BREAD"),
        ("{brand} - {product}", {"brand": None, "product": None}, "-"),
        ("{a}\n\t{b}", {"a": " x ", "b": "y"}, "x y"),
        ("{n:03d} of {f:.1f}", {"n": 7, "f": 2.25}, "007 of 2.2"),
        ("{a}", {"a": b"caf\xe9"}, "caf�"),
        ("{a}", {"a": "{b}"}, "{b}"),
    ],
)
def test_render_text(template: str, row: dict, text: str) -> None:
    assert render_text(template, row) == text


def test_a_text_of_100_kb_is_cut() -> None:
    assert len(render_text("{a}", {"a": "x" * 100_000})) == MAX_TEXT_CHARS


def test_blank_groups_are_no_group() -> None:
    assert [render_group(v) for v in (None, "  ", " FLUID  MILK ", 3)] == [None, None, "FLUID MILK", "3"]


def test_a_column_of_texts_equals_row_by_row() -> None:
    rows = [{"a": "x", "b": None}, {"a": None, "b": 2}, {"a": "x", "b": None}]
    table = pa.Table.from_pylist(rows, schema=pa.schema([("a", pa.string()), ("b", pa.int64())]))
    assert render_texts("{a}/{b}", table) == [render_text("{a}/{b}", row) for row in rows]
