"""``qanchor doctor``: versions, clashes, Java, weights, lake; and that it works where extras are missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qanchor_plugin.cli import doctor_machine, doctor_packages
from tests.qanchor_command import Qanchor

REPO = Path(__file__).resolve().parents[3]
WITHOUT_EXTRAS = """
import importlib.abc, importlib.metadata, sys
gone = {"torch", "transformers", "sentence_transformers", "pyspark", "delta", "deltalake", "feast"}
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
told = importlib.metadata.version
def version(name):
    if name.replace("-", "_").lower() in gone | {"delta_spark"}:
        raise importlib.metadata.PackageNotFoundError(name)
    return told(name)
importlib.metadata.version = version
from qanchor_plugin.cli.main import main
main(["doctor", "--json"])
"""


def test_json_of_this_machine(qanchor: Qanchor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = qanchor("doctor", "--json")
    by_name = {(one["part"], one["name"]): one for one in said.json["checks"]}
    assert by_name["core", "feast"]["seen"].startswith("0.67.")
    assert by_name["extra spark", "pyspark"]["wanted"] == "==4.2.0"
    assert by_name["machine", "java"]["state"] == "ok"
    assert by_name["machine", "encoder weights"]["state"] == "ok"
    assert by_name["repo", "feature repo"]["state"] == "absent"
    assert said.json["ok"] is (said.code == 0)


def test_it_works_where_every_extra_is_missing(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS],
        capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(REPO), "PATH": ""}, check=False,
    )  # fmt: skip
    answer = json.loads(told.stdout)
    states = {one["name"]: one for one in answer["checks"]}
    assert told.returncode == 1, "feast is not optional"
    assert states["feast"]["state"] == "problem"
    assert states["torch"]["state"] == "absent"
    assert states["torch"]["mend"] == "pip install 'feast-qanchor[engine]'"
    assert states["java"]["state"] == "absent"
    assert states["device"]["seen"] == "torch is not installed"


def test_a_clash_names_both_sides_and_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"delta-spark": "4.4.0", "pyspark": "4.3.0", "importlib_metadata": "8.8.0"}
    requires = {
        "delta-spark": ["pyspark<=4.2.0,>=4.0.1", "importlib_metadata<=8.7.1,>=1.0.0", "x; extra == 'y'"]
    }
    monkeypatch.setattr(doctor_packages, "installed_version", versions.get)
    monkeypatch.setattr(doctor_packages.metadata, "requires", lambda name: requires.get(name))
    first, second = doctor_packages.clashes(["delta-spark", "delta-spark"])
    assert (first.name, first.state) == ("delta-spark vs pyspark", "problem")
    assert first.seen == "delta-spark 4.4.0 with pyspark 4.3.0"
    assert first.mend == "pip install 'pyspark<=4.2.0,>=4.0.1'"
    assert second.name == "delta-spark vs importlib_metadata"


@pytest.mark.parametrize(
    ("says", "major"),
    [('openjdk version "17.0.15" 2025-04-15', 17), ('java version "1.8.0_412"', 8), ("no idea", None)],
)
def test_java_versions(tmp_path: Path, says: str, major: int | None) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    assert doctor_machine.java_version(str(java)) == major


def test_a_java_home_without_java_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    check = doctor_machine.java_check()
    assert check.state == "problem"
    assert "has no bin/java" in check.seen
    assert "openjdk-17" in check.mend


def test_truncated_weights_are_found_by_their_header(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(8)
    file = tmp_path / "model.safetensors"
    file.write_bytes(whole)
    assert doctor_machine.safetensors_fault(file) == ""
    file.write_bytes(whole[:-3])
    assert (
        f"has {len(whole) - 3} bytes where its header asks for {len(whole)}"
        in doctor_machine.safetensors_fault(file)
    )
    file.write_bytes(whole[:12])
    assert "truncated" in doctor_machine.safetensors_fault(file)


def test_a_repo_with_a_bad_setting_is_a_problem(qanchor: Qanchor, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("qanchor:\n  lake: here\n  lakes: there\n")
    said = qanchor("doctor", "--repo", str(tmp_path), "--json")
    assert said.code == 1
    (settings,) = [one for one in said.json["checks"] if one["part"] == "repo"]
    assert settings["state"] == "problem"
    assert "unknown keys ['lakes']" in settings["seen"]


def test_a_lake_in_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("qanchor:\n  lake: data/lake\n")
    from qanchor_plugin.cli.repo import settings_of

    checks = {one.name: one for one in doctor_machine.lake_checks(tmp_path, settings_of(tmp_path))}
    assert checks["lake"].state == "ok"
    assert "not made yet" in checks["lake"].seen
    assert checks["disk"].seen.endswith("free")
