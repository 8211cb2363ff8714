"""The environment stands when this ends well; otherwise one message says what to mend.

Standard library only, and syntax that an old Python still reads, so that it can say it is too old.
Run by ``make``: checks Python, Java, disk and package index, then installs the hashed lock.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
LOCK = REPO / "requirements.lock"
STAMP = ".qanchor-stamp"
OLDEST_PYTHON = (3, 11)
OLDEST_JAVA = 17
FREE_BYTES_NEEDED = 9_000_000_000
INDEX_PROBE = "iniconfig"  # a tiny package of the lock: asking for its versions shows the index answers


class SetupError(Exception):
    """The machine lacks something; the message says what, what was seen, and the mend."""


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> None:
    """Nothing when this Python can make the environment; else SetupError."""
    seen = ".".join(str(part) for part in version)
    if version[:2] < OLDEST_PYTHON:
        raise SetupError(
            f"Python {seen} is too old: 3.11 or newer is needed.\n"
            "Mend: install Python 3.11 (Debian: apt-get install python3.11 python3.11-venv), "
            "then run: make PYTHON=python3.11 demo"
        )
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"Python {seen} at {sys.executable} has no venv support (module ensurepip is missing).\n"
            "Mend: install it (Debian: apt-get install python3-venv) and run the command again."
        )


def java_major(printed: str) -> int | None:
    """The major version in what ``java -version`` printed (``1.8.0_392`` is 8); None without one."""
    found = re.search(r'version "(\d+)(?:\.(\d+))?', printed)
    if found is None:
        return None
    major = int(found.group(1))
    return int(found.group(2) or 0) if major == 1 else major


def check_java() -> None:
    """Nothing when Java 17 or newer answers; else SetupError."""
    mend = (
        "Mend: install Java 17 (Debian: apt-get install openjdk-17-jre-headless) or point JAVA_HOME at one."
    )
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not Path(java).exists():
        where = f"JAVA_HOME is {home}, which holds no bin/java" if home else "no java is on the PATH"
        raise SetupError(f"Java was not found: {where}. Spark needs Java {OLDEST_JAVA} or newer.\n{mend}")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    major = java_major(shown.stderr + shown.stdout)
    if major is None or major < OLDEST_JAVA:
        seen = "of an unknown version" if major is None else f"version {major}"
        raise SetupError(f"{java} is {seen}; Spark needs Java {OLDEST_JAVA} or newer.\n{mend}")


def check_disk(folder: Path) -> None:
    """Nothing when the packages fit below ``folder``; else SetupError."""
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES_NEEDED:
        raise SetupError(
            f"{free / 1e9:.1f} GB are free below {folder}; the packages (torch among them) need "
            f"{FREE_BYTES_NEEDED / 1e9:.0f} GB.\nMend: free some space, or set VENV=/another/folder."
        )


def check_index(python: Path) -> None:
    """Nothing when pip's own configured package index answers; else SetupError."""
    command = [
        str(python),
        "-m",
        "pip",
        "index",
        "versions",
        INDEX_PROBE,
        "--retries",
        "1",
        "--timeout",
        "20",
    ]
    asked = subprocess.run(
        [*command, "--disable-pip-version-check"], capture_output=True, text=True, check=False
    )
    if asked.returncode != 0:
        lines = [line for line in asked.stderr.splitlines() if line.startswith("ERROR")]
        raise SetupError(
            f"The Python package index did not answer (pip said: {lines[-1] if lines else 'nothing'}).\n"
            "Mend: check the network or the proxy; behind a mirror, set it once with "
            "pip config set global.index-url <address>. Then run the command again."
        )


def wanted_stamp() -> str:
    """What the stamp of an up-to-date environment says."""
    body = hashlib.sha256()
    for part in (LOCK.read_bytes(), (REPO / "pyproject.toml").read_bytes(), str(REPO).encode()):
        body.update(hashlib.sha256(part).digest())
    return body.hexdigest()


def locked_lines(name: str) -> str:
    """The lock's lines (pin and hashes) of one package."""
    entry = re.search(rf"^{re.escape(name)}==.*?(?=^\S|\Z)", LOCK.read_text(), re.MULTILINE | re.DOTALL)
    if entry is None:
        raise SetupError(f"{LOCK.name} does not pin {name}.\nMend: restore it, or run: make lock")
    return entry.group(0)


def run(command: list[str], *, environment: dict[str, str] | None = None) -> bool:
    """Whether the command ended well; what it prints goes to the terminal."""
    return subprocess.run(command, check=False, cwd=REPO, env=environment).returncode == 0


def uv_environment(python: Path) -> dict[str, str]:
    """This process's environment, with pip's configured index made known to uv."""
    environment = dict(os.environ)
    configured = {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE"} & set(environment)
    shown = subprocess.run(
        [str(python), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found = re.search(r"index-url='([^']+)'", shown.stdout)
    if found and not configured:
        environment["UV_DEFAULT_INDEX"] = found.group(1)
    return environment


def install(python: Path) -> None:
    """The locked packages and this project (editable) are installed; else SetupError."""
    uv = [str(python), "-m", "uv", "pip", "install", "--python", str(python)]
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "on"]
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "uv.txt"
        pinned.write_text(locked_lines("uv"))
        has_uv = run([*pip, "--quiet", "--require-hashes", "-r", str(pinned)])
    packages = ["--require-hashes", "-r", str(LOCK)]
    compiled = "--compile-bytecode"  # else every process compiles torch anew where caches are not written
    project = ["--no-deps", "--no-build-isolation", "-e", str(REPO)]
    environment = uv_environment(python)
    if not (has_uv and run([*uv, compiled, *packages], environment=environment)):
        say("uv could not install the lock; taking pip (some four minutes)")
        if not run([*pip, "--quiet", *packages]):
            raise SetupError("The packages could not be installed; pip's words stand above.")
    if not run([*pip, "--quiet", *project]):
        raise SetupError("The project itself could not be installed; pip's words stand above.")


def say(text: str) -> None:
    """One line on the terminal, at once."""
    print(f"[setup] {text}", flush=True)


def set_up(venv: Path) -> None:
    """The environment in ``venv`` agrees with the lock."""
    check_python()
    check_java()
    python, stamp = venv / "bin" / "python", venv / STAMP
    if python.exists() and stamp.exists() and stamp.read_text() == wanted_stamp():
        return
    began = time.monotonic()
    fresh = not python.exists()
    check_disk(venv.parent if fresh else venv)
    say(f"{'making' if fresh else 'bringing up to date'} the environment in {venv.name}")
    if fresh and not run([sys.executable, "-m", "venv", str(venv)]):
        raise SetupError(f"{sys.executable} -m venv {venv} failed; its words stand above.")
    try:
        check_index(python)
    except SetupError:
        if fresh:
            shutil.rmtree(venv)
        raise
    say("installing the locked packages (about 6 GB on Linux: one to five minutes, once)")
    install(python)
    stamp.write_text(wanted_stamp())
    say(f"ready after {time.monotonic() - began:.0f} s")


def main() -> int:
    """0 when the environment stands; 1 after one message."""
    parser = argparse.ArgumentParser(description="Make or update the environment.")
    parser.add_argument("--venv", type=Path, default=REPO / ".venv")
    try:
        set_up(parser.parse_args().venv.absolute())
    except SetupError as error:
        print(f"\nqanchor cannot be set up here.\n{error}\n", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
