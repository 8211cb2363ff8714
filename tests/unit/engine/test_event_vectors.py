"""Snapshots of vectors: found by id, and refused when they are not what was written."""

import json

import numpy as np
import pytest

from qanchor_plugin.engine.event_vectors import VectorSnapshot, write_snapshot
from qanchor_plugin.errors import LakeError, MissingVectorsError


def _ids(*given):
    return np.frombuffer(b"".join(given), np.uint8).reshape(-1, 16)


def _some(count, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 16), np.uint8), random.normal(size=(count, 4)).astype(np.float16)


@pytest.mark.parametrize("shard_rows", [1, 7, 1000])
def test_every_id_finds_its_own_vector_in_any_order(tmp_path, shard_rows):
    ids, vectors = _some(50)
    folder = write_snapshot(tmp_path, encoder_id="e", ids=ids, vectors=vectors, shard_rows=shard_rows)
    snapshot = VectorSnapshot.open(folder)
    order = np.random.default_rng(1).integers(0, 50, 200)
    np.testing.assert_array_equal(snapshot.lookup(ids[order]), vectors[order])
    assert (snapshot.encoder_id, snapshot.dim, snapshot.num_texts) == ("e", 4, 50)
    assert snapshot.snapshot_id == folder.name


@pytest.mark.parametrize("shard_rows", [1, 2, 100])
def test_ids_that_share_eight_bytes_and_ids_that_end_in_zeros(tmp_path, shard_rows):
    same = b"\xff" * 8
    ids = _ids(
        same + b"\x00" * 8,
        same + b"\x00" * 7 + b"\x01",
        same + b"\xff" * 8,
        b"abc" + b"\x00" * 13,
        b"abc\x00" + b"\x01" + b"\x00" * 11,
        b"\x00" * 16,
    )
    vectors = np.arange(12, dtype=np.float16).reshape(6, 2)
    snapshot = VectorSnapshot.open(
        write_snapshot(tmp_path, encoder_id="e", ids=ids, vectors=vectors, shard_rows=shard_rows)
    )
    np.testing.assert_array_equal(snapshot.lookup(ids[::-1]), vectors[::-1])
    with pytest.raises(MissingVectorsError) as caught:
        snapshot.lookup(_ids(same + b"\x00" * 6 + b"\x01\x00", ids[0].tobytes()))
    assert caught.value.num_missing == 1


def test_missing_ids_are_counted_once_each(tmp_path):
    ids, vectors = _some(5)
    snapshot = VectorSnapshot.open(write_snapshot(tmp_path, encoder_id="e", ids=ids, vectors=vectors))
    with pytest.raises(MissingVectorsError, match=r"2 event texts have no vector of encoder e") as caught:
        snapshot.lookup(np.concatenate([_ids(b"a" * 16, b"a" * 16, b"b" * 16), ids]))
    assert caught.value.num_missing == 2


def test_no_ids_and_no_vectors(tmp_path):
    empty = np.zeros((0, 16), np.uint8)
    folder = write_snapshot(tmp_path, encoder_id="e", ids=empty, vectors=np.zeros((0, 4), np.float16))
    snapshot = VectorSnapshot.open(folder)
    assert snapshot.lookup(empty).shape == (0, 4)
    with pytest.raises(MissingVectorsError):
        snapshot.lookup(_ids(b"a" * 16))


def test_current_names_the_newest_and_writing_again_changes_nothing(tmp_path):
    ids, vectors = _some(6)
    first = write_snapshot(tmp_path, encoder_id="e", ids=ids[:3], vectors=vectors[:3])
    stamp = (first / "manifest.json").stat().st_mtime_ns
    second = write_snapshot(tmp_path, encoder_id="e", ids=ids, vectors=vectors)
    assert VectorSnapshot.open(tmp_path).snapshot_id == second.name != first.name
    order = [2, 0, 1]
    assert write_snapshot(tmp_path, encoder_id="e", ids=ids[order], vectors=vectors[order]) == first
    assert (first / "manifest.json").stat().st_mtime_ns == stamp
    assert VectorSnapshot.open(tmp_path).snapshot_id == first.name
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_the_encoder_is_part_of_the_identity(tmp_path):
    ids, vectors = _some(3)
    one = write_snapshot(tmp_path / "a", encoder_id="a", ids=ids, vectors=vectors)
    assert write_snapshot(tmp_path / "b", encoder_id="b", ids=ids, vectors=vectors).name != one.name


def _spoil_truncate(folder):
    path = folder / "vectors-00000.npy"
    path.write_bytes(path.read_bytes()[:-3])


def _spoil_flip(folder):
    path = folder / "high-00000.npy"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)


def _spoil_remove(folder):
    (folder / "low-00000.npy").unlink()


def _spoil_manifest(folder):
    (folder / "manifest.json").write_text('{"format": 1')


def _spoil_format(folder):
    given = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(given | {"format": 99}))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_spoil_truncate, r"vectors-00000\.npy has \d+ bytes, \d+ were written"),
        (_spoil_flip, r"high-00000\.npy does not hold what was written"),
        (_spoil_remove, r"low-00000\.npy is absent"),
        (_spoil_manifest, r"manifest\.json cannot be read"),
        (_spoil_format, r"not a vector manifest of format 1"),
    ],
)
def test_spoilt_snapshots_are_refused_and_the_next_step_is_named(tmp_path, spoil, named):
    ids, vectors = _some(9)
    spoil(write_snapshot(tmp_path, encoder_id="e", ids=ids, vectors=vectors))
    with pytest.raises(LakeError, match=named + r".*qanchor refresh"):
        VectorSnapshot.open(tmp_path)


def test_an_absent_folder_is_refused(tmp_path):
    with pytest.raises(LakeError, match="no vectors at"):
        VectorSnapshot.open(tmp_path / "nowhere")


def test_unusable_input_is_refused(tmp_path):
    ids, vectors = _some(3)
    with pytest.raises(LakeError, match="repeat"):
        write_snapshot(tmp_path, encoder_id="e", ids=ids[[0, 0, 1]], vectors=vectors)
    with pytest.raises(LakeError, match="float16"):
        write_snapshot(tmp_path, encoder_id="e", ids=ids, vectors=vectors.astype(np.float32))
    with pytest.raises(LakeError, match=r"\(N, 16\)"):
        write_snapshot(tmp_path, encoder_id="e", ids=ids[:, :8], vectors=vectors)
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match="cannot write vectors"):
        write_snapshot(tmp_path / "file", encoder_id="e", ids=ids, vectors=vectors)
