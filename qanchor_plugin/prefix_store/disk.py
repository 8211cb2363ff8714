"""The disk tier: one file a prefix on this machine, shared by its processes, bounded in bytes."""

import fcntl
import logging
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import LakeError
from qanchor_plugin.identity import digest
from qanchor_plugin.prefix_store.entry import PrefixEntry
from qanchor_plugin.prefix_store.entry_file import read_entry, write_entry

SUFFIX = ".prefix"
_KEPT_SHARE = 0.9
_STALE_SECONDS = 3600.0
_USED = struct.Struct("<Q")
_log = logging.getLogger(__name__)


class DiskTier:
    """Files named by the digest of whose prefix they hold and of what it was made; the least recently used
    leave first.

    A file appears whole (written aside, then renamed) and is never changed: readers map it without a lock.
    Writers of all processes take turns at one lock, under which the bytes in use are counted, so the bound
    holds across processes and restarts.

    Args:
        folder: on a local disk; made when absent.
        max_bytes: bound on all files. An entry larger than this is not kept.

    Attributes:
        counts: ``corrupt``, ``foreign``, ``evicted``, ``failed_writes``.

    Raises:
        LakeError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = Path(folder), max_bytes
        self.counts: Counter[str] = Counter()
        self._threads = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._make_room(0, recount=True)
        except OSError as error:
            raise LakeError(
                f"prefix folder {self.folder} cannot be used ({error.strerror}). Set qanchor: prefix_folder: "
                "to a folder on a local disk that this user may write, or leave it out."
            ) from error

    @property
    def held_bytes(self) -> int:
        """Bytes of all files, by the count that the writers share."""
        return self._used()

    def get(self, user: bytes, prefix_id: str) -> PrefixEntry | None:
        """The user's prefix of that identity, its pages mapped from the file, or None.

        Soft tokens are checked here, byte for byte; keys and values by whoever uses them. A damaged or
        foreign file is counted and removed.
        """
        path = self.path_of(user, prefix_id)
        try:
            with path.open("rb") as file:
                entry = read_entry(file) if os.fstat(file.fileno()).st_size else None
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("prefix file %s cannot be read (%s); it counts as damaged", path, error)
            entry = None
        if entry is not None and (entry.user, entry.prefix_id) != (user, prefix_id):
            self._refused(path, "foreign")
            return None
        if entry is None or not entry.is_sound(user=user, prefix_id=prefix_id):
            self._refused(path, "corrupt")
            return None
        self._touch(path)
        return entry

    def put(self, entry: PrefixEntry) -> None:
        """The entry is on the disk, unless the disk is full: that is counted and logged, and no fault."""
        path = self.path_of(entry.user, entry.prefix_id)
        try:
            path.parent.mkdir(exist_ok=True)
            aside = self.folder / f".new-{uuid4().hex}"
            try:
                with aside.open("xb") as file:
                    size = write_entry(entry, file)
                self._place(aside, path, size)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            self.counts["failed_writes"] += 1
            _log.warning("a prefix could not be kept in %s (%s); it will be recomputed", self.folder, error)

    def drop(self, user: bytes, prefix_id: str) -> None:
        """That prefix is not on the disk any more."""
        self._remove([self.path_of(user, prefix_id)])

    def forget(self, users: Iterable[bytes]) -> int:
        """No file of these users is left, whatever engine wrote it; how many were."""
        found = [
            path for user in set(users) for path in self._shard(user).glob(f"{_user_name(user)}-*{SUFFIX}")
        ]
        return self._remove(found)

    def _place(self, aside: Path, path: Path, size: int) -> None:
        if size > self.max_bytes:
            return
        with self._locked():
            self._write_used(max(0, self._used() - _size(path)))
            path.unlink(missing_ok=True)
            self._make_room(size)
            os.replace(aside, path)
            self._write_used(self._used() + size)

    def _make_room(self, wanted: int, *, recount: bool = False) -> None:
        """Under the lock: the bytes in use and ``wanted`` more are within the bound; the oldest went."""
        if not recount and self._used() + wanted <= self.max_bytes:
            return
        files = sorted(self._files())
        used = sum(size for _, size, _ in files)
        room = self.max_bytes if used + wanted <= self.max_bytes else int(self.max_bytes * _KEPT_SHARE)
        for _, size, path in files:
            if used + wanted <= room:
                break
            path.unlink(missing_ok=True)
            used -= size
            self.counts["evicted"] += 1
        self._write_used(used)

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """(last used, bytes, path) of every prefix; what a killed writer left behind is removed."""
        for path in self.folder.glob(".new-*"):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(f"??/*{SUFFIX}"):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            yield facts.st_mtime_ns, facts.st_size, path

    def _refused(self, path: Path, why: str) -> None:
        self.counts[why] += 1
        self._remove([path])

    def _remove(self, paths: list[Path]) -> int:
        gone = 0
        with self._locked():
            for path in paths:
                size = _size(path)
                path.unlink(missing_ok=True)
                self._write_used(max(0, self._used() - size))
                gone += bool(size)
        return gone

    @staticmethod
    def _touch(path: Path) -> None:
        try:
            os.utime(path)
        except OSError:
            return  # another process evicted it; the mapping stays good

    def _shard(self, user: bytes) -> Path:
        return self.folder / _user_name(user)[:2]

    def path_of(self, user: bytes, prefix_id: str) -> Path:
        """Where that prefix stands, or would."""
        return self._shard(user) / f"{_user_name(user)}-{digest('prefix-file', user, prefix_id)}{SUFFIX}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._threads, (self.folder / ".lock").open("a+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _used(self) -> int:
        try:
            return int(_USED.unpack((self.folder / ".used").read_bytes())[0])
        except (FileNotFoundError, struct.error):
            return sum(size for _, size, _ in self._files())

    def _write_used(self, used: int) -> None:
        (self.folder / ".used").write_bytes(_USED.pack(used))


def forget_here(settings: Settings) -> dict[str, Callable[[Sequence[bytes]], int]]:
    """By place, what removes users from this machine's disk tier; none without a folder.

    Tiers of other machines are reached through their workers.
    """
    folder = settings.prefix_folder
    if folder is None or not Path(folder).is_dir():
        return {}
    return {f"prefix folder {folder}": DiskTier(folder, settings.prefix_folder_bytes).forget}


def _user_name(user: bytes) -> str:
    return digest("prefix-user", user)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
