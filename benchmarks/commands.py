"""How long the two commands take: a cold demo, a warm one, and the tests, in a copy of the checkout.

The environment and the jars are there already; everything else is made anew.
"""

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.results import ROOT, Row, keep, machine

COMMAND = "python -m benchmarks.commands"


def main() -> None:
    """The seconds stand in results/performance.json."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "qanchor"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
        (copy / ".venv").symlink_to(ROOT / ".venv", target_is_directory=True)
        timed = [
            ("make demo, cold", _seconds(copy, "-m", "feast_repo.demo"), 360),
            ("make demo, nothing changed", _seconds(copy, "-m", "feast_repo.demo"), 90),
            ("make test", _seconds(copy, "-m", "pytest", "-q", "-m", "not slow and not gpu"), 900),
        ]
    keep(
        "performance",
        [
            Row(
                table="commands",
                row=name,
                value=round(seconds, 1),
                unit="s",
                baseline=limit,
                baseline_name="allowed",
                ratio=limit / seconds,
                command=COMMAND,
                machine=machine(),
            )
            for name, seconds, limit in timed
        ],
    )


def _seconds(folder: Path, *arguments: str) -> float:
    command = [str(folder / ".venv" / "bin" / "python"), *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    print(f"{' '.join(arguments)}: {seconds:.1f} s", flush=True)
    return seconds


if __name__ == "__main__":
    main()
