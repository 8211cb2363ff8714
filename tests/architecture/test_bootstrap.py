"""The set-up says in one message what a machine lacks, before it makes anything."""

import importlib.util
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).resolve().parents[2]
SCRIPT = REPO / "tools" / "bootstrap.py"


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _java_that_prints(folder: Path, text: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{text}' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    return folder


def _run(venv: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--venv", str(venv)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("printed", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("command not found", None),
    ],
)
def test_java_major(bootstrap: ModuleType, printed: str, major: int | None) -> None:
    assert bootstrap.java_major(printed) == major


def test_old_python_is_named_with_the_mend(bootstrap: ModuleType) -> None:
    with pytest.raises(
        bootstrap.SetupError, match=r"Python 3\.10\.1 is too old: 3\.11 or newer(.|\n)*make PYTHON="
    ):
        bootstrap.check_python((3, 10, 1))


def test_missing_java_stops_before_any_work(tmp_path: Path) -> None:
    done = _run(tmp_path / "venv", JAVA_HOME=str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "Java was not found: JAVA_HOME is" in done.stderr
    assert "openjdk-17-jre-headless" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_old_java_stops_before_any_work(tmp_path: Path) -> None:
    java = _java_that_prints(tmp_path / "jdk8", 'java version "1.8.0_392"')
    done = _run(tmp_path / "venv", JAVA_HOME=str(java))
    assert done.returncode == 1
    assert "is version 8; Spark needs Java 17" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_unreachable_index_leaves_nothing_behind(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "FREE_BYTES_NEEDED", 0)  # this machine's disk may be nearly full
    monkeypatch.setenv("JAVA_HOME", str(_java_that_prints(tmp_path / "jdk", 'openjdk version "17.0.1"')))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(bootstrap.SetupError, match="The Python package index did not answer"):
        bootstrap.set_up(tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


def test_full_disk_stops_before_any_work(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "FREE_BYTES_NEEDED", 10**18)
    monkeypatch.setenv("JAVA_HOME", str(_java_that_prints(tmp_path / "jdk", 'openjdk version "17.0.1"')))
    with pytest.raises(bootstrap.SetupError, match=r"GB are free below .*\n?.*Mend: free some space"):
        bootstrap.set_up(tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


def test_uv_is_installed_from_the_lock(bootstrap: ModuleType) -> None:
    lines = bootstrap.locked_lines("uv")
    assert lines.startswith("uv==")
    assert "--hash=sha256:" in lines
    assert "uvicorn" not in lines
