"""``pushed_events``, written by delta-rs: pushes appended, rows that are done with removed, files packed."""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import LakeError
from qanchor_plugin.extras import require
from qanchor_plugin.prefix_store.forgotten import ForgottenUsers

logger = logging.getLogger(__name__)

TABLE = "pushed_events"
MAX_FILES = 64
"""A push that leaves more files than this packs them: every push is a file of its own at first."""
ATTEMPTS = 5


def append(path: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows are committed, all or none; the push's name. Rows of forgotten users are passed over.

    Args:
        path: the table's; it is made when it is not there.
        rows: columns of ``PUSHED_EVENTS`` but ``batch``, ``pushed_row`` and ``pushed_at``.

    Raises:
        LakeError: the lake cannot be written; nothing was.
    """
    deltalake = require("deltalake", purpose="Pushing events")
    lake = Path(path.removeprefix("file://")).parent
    now = datetime.now(UTC)
    push = f"{now:%Y%m%dT%H%M%S%f}-{os.urandom(4).hex()}"
    named = [
        {**row, S.BATCH: push, S.PUSHED_ROW: f"{push}-{number:06d}", S.PUSHED_AT: now}
        for number, row in enumerate(rows)
    ]
    try:
        with alone(path):
            forgotten = ForgottenUsers(lake)  # read within: whoever forgets holds the lock
            kept = [row for row in named if row[S.USER] not in forgotten]
            if not kept:
                return push
            _create(path)
            _committed(path, pa.Table.from_pylist(kept, schema=S.PUSHED_EVENTS))
            if len(deltalake.DeltaTable(path).file_uris()) > MAX_FILES:
                _pack(path)
    except (OSError, pa.ArrowException, deltalake.exceptions.DeltaError) as error:
        raise LakeError(
            f"{len(named)} pushed events could not be written to {path} ({type(error).__name__}: {error}). "
            "Nothing was kept. Check that the lake is writable and has space, then push again."
        ) from error
    return push


def remove(path: str, rows: Sequence[str]) -> int:
    """The rows of these names are gone, in one commit; how many are left all the same.

    What is left is counted once all the same, and goes next time.
    """
    deltalake = require("deltalake", purpose="Removing pushed events")
    names = pa.table({S.PUSHED_ROW: pa.array(rows, pa.string())})
    same = f"stored.{S.PUSHED_ROW} = gone.{S.PUSHED_ROW}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with alone(path):
                table = deltalake.DeltaTable(path)
                merge = table.merge(names, predicate=same, source_alias="gone", target_alias="stored")
                merge.when_matched_delete().execute()
            return 0
        except (OSError, deltalake.exceptions.DeltaError) as error:
            logger.warning("attempt %d: %d pushed events stay in %s (%s)", attempt, len(rows), path, error)
    return len(rows)


@contextlib.contextmanager
def alone(path: str) -> Iterator[None]:
    """Within the block nobody else writes the table; appending and rewriting take some milliseconds.

    delta-rs refuses an append beside a delete, and of two packings at once it keeps both copies.
    """
    folder = Path(path.removeprefix("file://"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "_writer.lock").open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _committed(path: str, rows: pa.Table) -> None:
    """The rows are committed; a writer that knows no lock of ours (an OPTIMIZE) is outwaited."""
    deltalake = require("deltalake", purpose="Pushing events")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            deltalake.write_deltalake(path, rows, mode="append")
            return
        except deltalake.exceptions.CommitFailedError as error:
            if attempt == ATTEMPTS:
                raise
            logger.info("push attempt %d met another writer: %s", attempt, error)
            time.sleep(0.05 * attempt)


def _pack(path: str) -> None:
    """Few files hold what many did."""
    deltalake = require("deltalake", purpose="Pushing events")
    try:
        deltalake.DeltaTable(path).optimize.compact()
    except (OSError, deltalake.exceptions.DeltaError) as error:
        logger.warning("pushed events %s are not packed this time: %s", path, error)


def _create(path: str) -> None:
    """The table stands, empty if it was not there; its log keeps no bounds of users and texts."""
    deltalake = require("deltalake", purpose="Pushing events")
    if not deltalake.DeltaTable.is_deltatable(path):
        columns = ",".join(S.PUSHED_STATISTICS)
        settings = {"delta.dataSkippingStatsColumns": columns}
        deltalake.DeltaTable.create(path, schema=S.PUSHED_EVENTS, mode="ignore", configuration=settings)
