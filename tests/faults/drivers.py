"""A refresh in its own process, to be killed anywhere, and a reader that watches the lake meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from qanchor_plugin import schemas as S
from tests.spark.quick import QUICK
from tests.spark.world import World, on

END = on(5)
READER = """
import sys, time
from pathlib import Path
import pyarrow as pa
from deltalake import DeltaTable
lake = Path(sys.argv[1])
seen, faults = {}, []

def rows(name):
    if not DeltaTable.is_deltatable(str(lake / name)):
        return None
    return DeltaTable(str(lake / name)).to_pyarrow_table()

while not (lake.parent / "stop").exists():
    for name in ("behaviour_sequences", "profile_rows", "user_prefixes", "scenario_embeddings"):
        table = rows(name)
        if table is not None:
            seen.setdefault(name, set()).add(table.num_rows)
    sequences, texts = rows("behaviour_sequences"), rows("event_texts")
    if sequences is not None and texts is not None:
        named = {one for ids in sequences["text_id"].to_pylist() for one in ids}
        if named - set(texts["text_id"].to_pylist()):
            faults.append("an event names a text that is not there")
    time.sleep(0.02)
print(repr({"seen": {name: sorted(one) for name, one in seen.items()}, "faults": faults}))
"""
"""Prints the numbers of rows that it ever saw in each table, and what it found wrong."""


@dataclass(frozen=True)
class Driver:
    """A running refresh.

    Attributes:
        process: the Python driver; its JVM is in its process group.
        lake: where it writes.
    """

    process: subprocess.Popen[str]
    lake: Path

    @property
    def has_ended(self) -> bool:
        """Whether the driver is gone."""
        return self.process.poll() is not None

    def num_commits(self) -> int:
        """Commits in all the lake's tables so far."""
        return sum(1 for _ in self.lake.glob("*/_delta_log/*.json"))

    def run_until(self, reached: Callable[["Driver"], bool], *, seconds: float = 900) -> None:
        """Returns as soon as ``reached``, or when the driver has ended."""
        deadline = time.monotonic() + seconds
        while not self.has_ended and not reached(self):
            assert time.monotonic() < deadline, "the refresh neither got there nor ended"
            time.sleep(0.003)

    def kill(self) -> None:
        """Driver, JVM and Python workers are dead at once."""
        family = [self.process.pid, *(one.pid for one in _children(self.process.pid))]
        for pid in family:
            _kill(pid)
        self.process.wait()
        for pid in family[1:]:
            _await_death(pid)

    def kill_a_worker(self) -> bool:
        """A Python worker of the driver is dead; False where there was none."""
        workers = [one for one in _children(self.process.pid) if _is_worker(one)]
        for one in workers[-1:]:
            _kill(one.pid)
        return bool(workers)


def start(world: World, folder: Path, *, master: str = "local[2]", lake: str = "lake") -> Driver:
    """``python -m spark_jobs.refresh`` to ``END`` over the world's sources into ``folder/lake``."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "lake": lake, "clock": on(30).isoformat(), "device": "cpu", "users_per_batch": 3,
        "spark_master": master, "spark_conf": QUICK, "log_folder": "logs",
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "declarations.json").write_text(world.declarations.to_json())
    command = [
        sys.executable, "-m", "spark_jobs.refresh", "--end", END.isoformat(),
        "--declarations", str(folder / "declarations.json"), "--settings", str(folder / "settings.json"),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    with (folder / "driver.log").open("a") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, text=True, env=environment, start_new_session=True
        )
    return Driver(process, folder / lake)


@contextmanager
def reading(lake: Path) -> Iterator[Callable[[], dict]]:
    """A reader looks at the lake all the time; called at the end, it says what it saw."""
    lake.mkdir(parents=True, exist_ok=True)
    reader = subprocess.Popen([sys.executable, "-c", READER, str(lake)], stdout=subprocess.PIPE, text=True)

    def stop() -> dict:
        (lake.parent / "stop").touch()
        said, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0, "the reader met a lake that cannot be read"
        return eval(said)  # our own child's literal

    try:
        yield stop
    finally:
        if reader.poll() is None:
            reader.kill()
            reader.communicate()


def rows_of(world: World, lake: Path) -> dict[str, list[dict]]:
    """Every row of every table but the ledger, in one order, run names and their derivatives aside."""
    from deltalake import DeltaTable

    found = {}
    for name, schema in S.TABLES.items():
        if name == "job_runs" or not DeltaTable.is_deltatable(str(lake / name)):
            continue
        named_by_run = (S.BATCH,) if name in ("user_prefixes", "scenario_embeddings") else ()
        columns = [one for one in schema.names if one not in named_by_run]
        rows = DeltaTable(str(lake / name)).to_pyarrow_table(columns=columns).to_pylist()
        found[name] = sorted(rows, key=lambda row: repr(_without_vector(row)))
    return found


def assert_same_rows(ours: dict[str, list[dict]], theirs: dict[str, list[dict]]) -> None:
    """All the same, embeddings within 1e-6: users who share a forward share its rounding."""
    assert ours.keys() == theirs.keys()
    for name, rows in theirs.items():
        assert list(map(_without_vector, ours[name])) == list(map(_without_vector, rows)), name
        vectors = [[row[S.EMBEDDING] for row in one if S.EMBEDDING in row] for one in (ours[name], rows)]
        np.testing.assert_allclose(*vectors, atol=1e-6, err_msg=name)


def _without_vector(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != S.EMBEDDING}


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_worker(process: psutil.Process) -> bool:
    """A worker is the daemon's child: both run the daemon's module."""
    try:
        parent = process.parent()
        ours = "spark_jobs.worker_daemon"
        return ours in process.cmdline() and parent is not None and ours in parent.cmdline()
    except psutil.NoSuchProcess:
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _await_death(pid: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} outlived its kill")
