"""One run of the jobs at a time: the operating system's own lock on a file of the lake."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from qanchor_plugin.errors import JobBusyError, LakeError

LOCK = "_refresh.lock"


@contextlib.contextmanager
def only_run(folder: Path, run: str) -> Iterator[None]:
    """Within the block this is the only run on the lake.

    The kernel drops the lock when its process ends, however it ends: no lock is ever stale.

    Raises:
        JobBusyError: another run holds it; names its process and start. Nothing was done.
    """
    path = folder / LOCK
    try:
        handle = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise LakeError(
            f"lock {path} cannot be opened ({error.strerror}). Make the lake writable."
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            raise JobBusyError(
                f"another run holds the lake {folder}: {handle.read() or 'just started'}. This one did "
                "nothing. Wait for it to end and run again."
            ) from error
        handle.truncate(0)
        owner = {"run": run, "pid": os.getpid(), "host": socket.gethostname()}
        handle.write(json.dumps(owner | {"since": datetime.now(UTC).isoformat(timespec="seconds")}))
        handle.flush()
        yield
