"""The disk tier: whole files or none, bounded across processes, checked before they are used."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import LakeError
from qanchor_plugin.prefix_store import DiskTier, forget_here
from tests.unit.prefix_store.entries import entry, kept


def files(tier: DiskTier) -> list[Path]:
    return sorted(tier.folder.glob("??/*.prefix"))


def size_of_one(tmp_path: Path) -> int:
    tier = DiskTier(tmp_path / "one", 1 << 20)
    tier.put(entry())
    return tier.held_bytes


def test_what_was_put_is_read_by_another_process_and_after_a_restart(tmp_path):
    DiskTier(tmp_path, 1 << 20).put(entry(b"u1", fill=0.5).with_kv(kept(num_bytes=100)))
    code = (
        "import sys; from qanchor_plugin.prefix_store import DiskTier\n"
        "one = DiskTier(sys.argv[1], 1 << 20).get(b'u1', 'p1')\n"
        "assert one.kv_fault(kv_digest='e' * 32) is None\n"
        "print(one.tokens[0, 0], one.as_of, one.kv.kept.scheme, one.kv.kept.payload.sum())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["0.5", "1500000000000000", "int8", "700"]


def test_arrays_are_mapped_and_nothing_is_written_through_them(tmp_path):
    tier = DiskTier(tmp_path, 1 << 20)
    tier.put(entry())
    tier.get(b"u1", "p1").tokens[:] = 9.0
    assert tier.get(b"u1", "p1").tokens[0, 0] == 1.0


def test_another_user_or_identity_is_not_there(tmp_path):
    tier = DiskTier(tmp_path, 1 << 20)
    tier.put(entry(b"u1", "p1"))
    assert tier.get(b"u2", "p1") is None
    assert tier.get(b"u1", "p2") is None
    assert not tier.counts


@pytest.mark.parametrize("damage", ["cut", "empty", "head", "tokens", "longer"])
def test_a_damaged_file_is_a_counted_miss_and_removed(tmp_path, damage):
    tier = DiskTier(tmp_path, 1 << 20)
    tier.put(entry())
    (path,) = files(tier)
    body = bytearray(path.read_bytes())
    if damage == "cut":
        del body[-64:]
    elif damage == "empty":
        body.clear()
    elif damage == "longer":
        body += bytes(64)
    else:
        body[40 if damage == "head" else -100] ^= 1
    path.write_bytes(body)
    assert tier.get(b"u1", "p1") is None
    assert tier.counts["corrupt"] == 1
    assert files(tier) == []
    tier.put(entry())
    assert tier.get(b"u1", "p1") is not None


def test_another_users_file_in_this_place_is_foreign(tmp_path):
    tier = DiskTier(tmp_path, 1 << 20)
    tier.put(entry(b"u1"))
    tier.put(entry(b"u2"))
    one, two = (tier.path_of(user, "p1") for user in (b"u1", b"u2"))
    one.write_bytes(two.read_bytes())
    assert tier.get(b"u1", "p1") is None
    assert (tier.counts["foreign"], tier.counts["corrupt"]) == (1, 0)
    assert tier.get(b"u2", "p1").user == b"u2"


def test_the_oldest_by_use_leave_first_and_the_bound_holds(tmp_path):
    size = size_of_one(tmp_path)
    tier = DiskTier(tmp_path / "tier", 3 * size)
    for number in (1, 2, 3):
        tier.put(entry(b"u%d" % number))
        os.utime(tier.path_of(b"u%d" % number, "p1"), ns=(number, number))
    assert tier.get(b"u1", "p1") is not None, "now the newest by use"
    tier.put(entry(b"u4"))
    assert tier.held_bytes <= 3 * size
    assert tier.get(b"u2", "p1") is None
    assert tier.get(b"u1", "p1") is not None
    assert tier.held_bytes == sum(path.stat().st_size for path in files(tier))
    tier.put(entry(b"u5", num_tokens=10_000))
    assert tier.get(b"u5", "p1") is None, "larger than the bound"


def test_writers_in_several_processes_keep_the_bound_together(tmp_path):
    size = size_of_one(tmp_path)
    folder = tmp_path / "shared"
    code = (
        "import sys; from qanchor_plugin.prefix_store import DiskTier\n"
        "from tests.unit.prefix_store.entries import entry\n"
        "tier = DiskTier(sys.argv[1], int(sys.argv[2]))\n"
        "for n in range(40): tier.put(entry(b'%s-%d' % (sys.argv[3].encode(), n)))\n"
        "assert not tier.counts['failed_writes']"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(folder), str(10 * size), name]) for name in "ab"
    ]
    assert [one.wait(timeout=120) for one in writers] == [0, 0]
    tier = DiskTier(folder, 10 * size)
    held = sum(path.stat().st_size for path in files(tier))
    assert 0 < held <= 10 * size
    assert tier.held_bytes == held


def test_forget_removes_every_file_of_a_user_and_no_other(tmp_path):
    tier = DiskTier(tmp_path, 1 << 20)
    for user, prefix_id in ((b"u1", "p1"), (b"u1", "p2"), (b"u2", "p1")):
        tier.put(entry(user, prefix_id))
    assert tier.forget([b"u1", b"u9"]) == 2
    assert [tier.get(user, "p1") is None for user in (b"u1", b"u2")] == [True, False]
    assert tier.held_bytes == files(tier)[0].stat().st_size
    ((place, forget),) = forget_here(Settings(lake="lake", prefix_folder=str(tmp_path))).items()
    assert (place, forget([b"u2"]), files(tier)) == (f"prefix folder {tmp_path}", 1, [])
    assert forget_here(Settings(lake="lake", prefix_folder=str(tmp_path / "none"))) == {}


def test_what_a_killed_writer_left_is_removed_when_old(tmp_path):
    old, new = tmp_path / ".new-1", tmp_path / ".new-2"
    old.write_bytes(bytes(100))
    new.write_bytes(bytes(100))
    os.utime(old, (1, 1))
    DiskTier(tmp_path, 1 << 20)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_disk_that_cannot_be_written_is_counted_and_no_fault(tmp_path):
    tier = DiskTier(tmp_path / "tier", 1 << 20)
    tier._shard(b"u1").write_bytes(b"a file where a folder should be")
    tier.put(entry(b"u1"))
    assert tier.counts["failed_writes"] == 1
    assert not list(tier.folder.glob(".new-*"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LakeError, match="prefix_folder: to a folder on a local disk"):
        DiskTier(tmp_path / "file" / "below", 1 << 20)


def test_keys_and_values_are_views_of_the_mapping(tmp_path):
    tier = DiskTier(tmp_path, 1 << 20)
    tier.put(entry().with_kv(kept(num_bytes=1000)))
    one = tier.get(b"u1", "p1")
    assert not one.kv.kept.payload.flags.owndata
    np.testing.assert_array_equal(one.kv.kept.payload, kept(num_bytes=1000).payload)
