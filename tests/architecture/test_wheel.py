"""What ``pip install feast-qanchor`` brings: both packages, their data, nothing else of the checkout."""

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("qanchor_plugin", "spark_jobs")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    (wheel,) = WheelBuilder(str(REPO)).build(directory=str(tmp_path_factory.mktemp("wheel")))
    with zipfile.ZipFile(wheel) as opened:
        return {name for name in opened.namelist() if ".dist-info/" not in name}


def test_the_wheel_is_both_packages_and_nothing_else(shipped: set[str]) -> None:
    modules = {str(path.relative_to(REPO)) for package in PACKAGES for path in (REPO / package).rglob("*.py")}
    assert {name for name in shipped if name.endswith(".py")} == modules
    assert {name.split("/")[0] for name in shipped} == set(PACKAGES)


def test_the_wheel_carries_the_demo_engine(shipped: set[str]) -> None:
    presets = (REPO / "qanchor_plugin" / "engine" / "presets").rglob("*")
    files = {str(path.relative_to(REPO)) for path in presets if path.is_file() and path.suffix != ".pyc"}
    assert any(name.endswith(".safetensors") for name in files)
    assert files <= shipped
