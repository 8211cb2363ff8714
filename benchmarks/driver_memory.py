"""Peak memory of the driver, over one and over twenty times as many users.

Each refresh runs in a process of its own on ``local-cluster``, where executors are separate processes: what
grows in the driver would be rows that travelled to it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.results import Row, keep, machine
from benchmarks.shop import END, declarations, write_purchases
from qanchor_plugin.declare import Settings

COMMAND = "python -m benchmarks.driver_memory"
EVENTS, MAX_EVENTS = 40, 32


def main() -> None:
    """The peaks stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=500, help="users of the small run")
    parser.add_argument("--times", type=int, default=20, help="how many times more the large run has")
    parser.add_argument("--one", type=int, help="only refresh this many users, and print the peaks")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_refresh_and_measure(given.one)))
        return
    small, large = (_measured(n) for n in (given.users, given.users * given.times))
    print(f"{given.users} users: {small}; {given.users * given.times} users: {large}")
    keep(
        "performance",
        [
            Row(
                table="driver-memory",
                row=f"driver, {what}, {given.users * given.times:,} users",
                value=large[key],
                unit="MB",
                baseline=small[key],
                baseline_name=f"{given.users:,} users",
                ratio=small[key] / large[key],
                command=COMMAND,
                machine=machine(),
            )
            for key, what in (("python", "peak RSS of Python"), ("jvm", "peak RSS of the JVM"))
        ],
    )


def _measured(num_users: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.driver_memory", "--one", str(num_users)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the refresh over {num_users} users failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _refresh_and_measure(num_users: int) -> dict[str, float]:
    from qanchor_plugin.engine import QueryAnchorEngine
    from spark_jobs.refresh import refresh
    from spark_jobs.session import get_session

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_purchases(folder / "purchases", num_users=num_users, events_per_user=EVENTS)
        digest = QueryAnchorEngine.load("demo", device="cpu").digest
        declared = declarations(
            folder / "purchases", engine="demo", engine_digest=digest, max_events=MAX_EVENTS
        )
        settings = Settings(
            lake=str(folder / "lake"),
            clock=END,
            log_folder=str(folder / "logs"),
            spark_master="local-cluster[1,2,3072]",
            spark_conf={"spark.executor.memory": "3g", "spark.driver.memory": "2g"},
        )
        spark = get_session(settings)
        refresh(spark, settings, declared, end=END)
        peaks = {"python": peak_mb("self"), "jvm": peak_mb(str(_jvm_of_this_process()))}
        spark.stop()
    return peaks


def peak_mb(pid: int | str) -> float:
    """Highest resident memory of a process so far (VmHWM), in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"/proc/{pid}/status has no VmHWM; run this on Linux")


def _jvm_of_this_process() -> int:
    """The driver's JVM: the one Java process that is our direct child."""
    import os

    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields["Name"].strip() == "java" and int(fields["PPid"]) == os.getpid():
            return int(status.parent.name)
    raise RuntimeError("this process has no Java child; did the session start?")


if __name__ == "__main__":
    main()
