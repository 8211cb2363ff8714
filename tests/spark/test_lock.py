"""One run at a time; a dead run's lock is nobody's."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qanchor_plugin.errors import JobBusyError, LakeError
from spark_jobs.lock import LOCK, only_run

HOLD = """
import sys, time
from pathlib import Path
from spark_jobs.lock import only_run
with only_run(Path(sys.argv[1]), "other-run"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_the_lake_until_it_dies(tmp_path: Path) -> None:
    other = holder(tmp_path)
    try:
        with pytest.raises(JobBusyError, match=rf"other-run.*{other.pid}"), only_run(tmp_path, "mine"):
            pytest.fail("two runs at once")
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        assert other.stdout is not None
        other.stdout.close()
    with only_run(tmp_path, "mine"):
        assert json.loads((tmp_path / LOCK).read_text())["run"] == "mine"


def test_a_second_thread_or_call_is_refused_too_and_then_goes_on(tmp_path: Path) -> None:
    with only_run(tmp_path, "first"), pytest.raises(JobBusyError), only_run(tmp_path, "second"):
        pytest.fail("two runs at once")
    with only_run(tmp_path, "third"):
        pass


def test_a_lake_that_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="cannot be opened"), only_run(tmp_path / "absent", "run"):
        pytest.fail("locked nothing")
