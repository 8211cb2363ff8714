"""How long the two commands take, in a copy of the checkout: a cold demo, a warm one, and the tests.

What the cold demo printed is kept too: README shows it.

The environment and the jars are there already; everything else is made anew.
"""

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.results import DEMO_OUTPUT, ROOT, Row, keep, machine

COMMAND = "python -m benchmarks.commands"
TESTS = ("-q", "-n", "2", "--dist", "loadfile", "-m", "not slow and not gpu")
"""As ``make test`` runs them."""


def main() -> None:
    """The seconds stand in results/performance.json, the cold demo's words in results/demo_output.txt."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "qanchor"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
        (copy / ".venv").symlink_to(ROOT / ".venv", target_is_directory=True)
        cold, printed = _timed(copy, "-m", "feast_repo.demo")
        DEMO_OUTPUT.write_text(printed)
        warm, _ = _timed(copy, "-m", "feast_repo.demo")
        tests, _ = _timed(copy, "-m", "pytest", *TESTS)
    timed = [
        ("make demo, cold", cold, 360),
        ("make demo, nothing changed", warm, 90),
        ("make test", tests, 900),
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


def _timed(folder: Path, *arguments: str) -> tuple[float, str]:
    """Seconds that the command took, and what it printed."""
    command = [str(folder / ".venv" / "bin" / "python"), *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    print(f"{' '.join(arguments)}: {seconds:.1f} s", flush=True)
    return seconds, done.stdout


if __name__ == "__main__":
    main()
