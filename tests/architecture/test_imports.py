"""Imports go one way, shown in fresh interpreters: what an edge needs is absent elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

_BLOCKER = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked here", name=name)

sys.meta_path.insert(0, Blocked())
num_modules = 0
for package in {packages!r}:
    found = importlib.import_module(package)
    num_modules += 1
    for one in pkgutil.walk_packages(getattr(found, "__path__", []), package + "."):
        importlib.import_module(one.name)
        num_modules += 1
print(num_modules)
"""

HEAVY = (
    "feast",
    "pyspark",
    "delta",
    "deltalake",
    "torch",
    "transformers",
    "sentence_transformers",
    "sklearn",
)


def _import_all(packages: tuple[str, ...], blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = _BLOCKER.format(packages=packages, blocked=set(blocked))
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("packages", "blocked"),
    [
        pytest.param(
            ("qanchor_plugin.declare", "qanchor_plugin.sequence", "qanchor_plugin.schemas"),
            (*HEAVY, "pandas", "yaml", "rich", "typer"),
            id="declare and sequence need pyarrow and numpy alone",
        ),
        pytest.param(
            ("qanchor_plugin.engine",),
            ("feast", "pyspark", "delta", "deltalake"),
            id="engine without feast, spark",
        ),
        pytest.param(
            ("qanchor_plugin.feast_ext",),
            ("torch", "transformers", "sentence_transformers", "safetensors"),
            id="the Feast classes without torch",
        ),
        pytest.param(
            ("qanchor_plugin.backend", "qanchor_plugin.prefix_store"),
            ("feast", "pyspark"),
            id="backend without JVM",
        ),
        pytest.param(("qanchor_plugin.cli",), (*HEAVY, "hypothesis"), id="the command line starts light"),
        pytest.param(
            ("qanchor_plugin.worker",), ("feast", "pyspark", "delta"), id="worker without JVM, feast"
        ),
        pytest.param(("qanchor_plugin.losses",), ("feast", "pyspark", "deltalake"), id="losses are pure"),
    ],
)
def test_package_imports_whole_without(packages: tuple[str, ...], blocked: tuple[str, ...]) -> None:
    done = _import_all(packages, blocked)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > len(packages)


def test_the_blocker_blocks() -> None:
    done = _import_all(("qanchor_plugin.sequence",), ("pyarrow",))
    assert done.returncode != 0
    assert "pyarrow is blocked here" in done.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, qanchor_plugin.engine; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_layers_hold() -> None:
    lint_imports = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [str(lint_imports)], cwd=REPO, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
