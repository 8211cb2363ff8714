"""The checkpoint's folder: what counts as done, what is refused, and that nothing counts half."""

from dataclasses import replace
from pathlib import Path

import pytest

from qanchor_plugin.errors import InputDataError, JobBusyError
from qanchor_plugin.feast_ext.training_checkpoint import Checkpoint, Inputs

INPUTS = Inputs(
    entities="rows.parquet",
    entities_digest="a",
    features=("cheese:embedding",),
    mode="exact",
    declared={"cheese": "1"},
)


def test_a_chunk_counts_once_its_counts_stand_and_what_was_half_written_is_cleared(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "work")
    with checkpoint.held():
        assert checkpoint.manifest() is None
        checkpoint.begin(INPUTS, num_rows=3, num_chunks=3)
        half = checkpoint.place(0)
        half.mkdir()
        (half / "part-0.parquet").write_bytes(b"half")
        assert checkpoint.done(0) is None
        assert checkpoint.place(0) == half
        assert not half.exists()
        half.mkdir()
        checkpoint.commit(0, {"rows": 3})
        checkpoint.commit(1, {"rows": 0})
    with checkpoint.held():  # another process, later
        checkpoint.check(INPUTS)
        assert [checkpoint.done(n) for n in range(3)] == [{"rows": 3}, {"rows": 0}, None]
        assert checkpoint.answers(3) == [str(half)]
        assert checkpoint.report() is None
        checkpoint.finish({"rows": 3})
        assert checkpoint.report() == {"rows": 3}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"entities_digest": "b"}, "entities_digest was 'a', is 'b'"),
        ({"features": ("cheese:embedding", "x:y")}, "features was ['cheese:embedding'], is"),
        ({"mode": "as_served"}, "mode was 'exact', is 'as_served'"),
        ({"declared": {"cheese": "2"}}, "declared was {'cheese': '1'}, is {'cheese': '2'}"),
    ],
)
def test_other_inputs_are_refused_and_named(tmp_path: Path, changes: dict, told: str) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.begin(INPUTS, num_rows=1, num_chunks=1)
    with pytest.raises(InputDataError) as caught:
        checkpoint.check(replace(INPUTS, **changes))
    assert told in str(caught.value)


def test_where_the_rows_stand_does_not_count(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.begin(INPUTS, num_rows=1, num_chunks=1)
    checkpoint.check(replace(INPUTS, entities="elsewhere/rows.parquet"))


def test_two_processes_and_folders_of_others_are_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "work")
    with checkpoint.held(), pytest.raises(JobBusyError, match="another process works"), checkpoint.held():
        pass
    (tmp_path / "work" / "manifest.writing").write_text("{")  # of a process that was killed while writing
    with checkpoint.held():
        assert checkpoint.manifest() is None
    (tmp_path / "work" / "thesis.docx").write_text("mine")
    with pytest.raises(InputDataError, match=r"holds \['thesis.docx'\]"), checkpoint.held():
        pass
