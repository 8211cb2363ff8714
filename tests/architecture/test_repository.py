"""What is committed names no machine and no download host, and what the pages show compiles."""

import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
MACHINE_PATH = re.compile(r"(?<![\w.~*}\])/-])/(?:root|home/\w+|opt/\w+|work/\w+|Users/\w+)\b")
CODE_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _tracked(*suffixes: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=False, timeout=30
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout (an unpacked archive): there is no list of tracked files")
    names = [name for name in listed.stdout.split("\0") if name]
    return [REPO / name for name in names if name.endswith(suffixes) and (REPO / name).is_file()]


def test_lock_names_no_host_and_hashes_everything() -> None:
    text = (REPO / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    pins = re.findall(r"^[A-Za-z0-9_.\[\]-]+==\S+.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(pins) > 100
    assert [pin.split()[0] for pin in pins if "--hash=sha256:" not in pin] == []
    unpinned = [line for line in text.splitlines() if line and not line.startswith(" ") and "==" not in line]
    assert unpinned == []


def test_no_path_of_one_machine_is_committed() -> None:
    texts = _tracked(
        ".py", ".md", ".toml", ".yaml", ".yml", ".lock", ".json", "Makefile", "run", ".feastignore"
    )
    found = [
        f"{path.relative_to(REPO)}:{number}: {line.strip()[:80]}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line) and path != Path(__file__)
    ]
    assert found == []


def test_files_stay_small() -> None:
    long = {
        str(path.relative_to(REPO)): num_lines
        for path in _tracked(".py")
        if "tests" not in path.parts and (num_lines := len(path.read_text().splitlines())) > 300
    }
    assert long == {}


def _code_blocks() -> list[tuple[str, str]]:
    pages = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
    return [
        (f"{page.relative_to(REPO)}#{number}", code)
        for page in pages
        if page.is_file()
        for number, code in enumerate(CODE_BLOCK.findall(page.read_text(encoding="utf-8")), start=1)
    ]


@pytest.mark.parametrize(("where", "code"), [pytest.param(*block, id=block[0]) for block in _code_blocks()])
def test_code_shown_on_pages_compiles(where: str, code: str) -> None:
    compile(code, where, "exec")
