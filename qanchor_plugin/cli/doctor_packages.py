"""What is installed, what was asked for, and which installed versions clash."""

import importlib.metadata as metadata
import importlib.util
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

DISTRIBUTION = "feast-qanchor"
State = Literal["ok", "absent", "warning", "problem"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at.

    Attributes:
        part: heading it stands under.
        name: what was looked at.
        state: ``absent`` is an optional part that is not there; ``problem`` makes the exit code 1.
        seen: what was found.
        wanted: what is accepted, or "".
        mend: what to do about it, or "".
    """

    part: str
    name: str
    state: State
    seen: str
    wanted: str = ""
    mend: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One requirement of this package: its name, range, and the extra that asks for it ("" the core)."""

    name: str
    specifier: str
    extra: str


def wanted_packages() -> list[Wanted]:
    """This package's requirements by extra, from its metadata, else from the checkout's pyproject.toml."""
    lines = _required_lines()
    wanted = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
        name, specifier = _split(requirement)
        asked_by = extra.group(1) if extra else ""
        if name == DISTRIBUTION or asked_by in ("dev", "all"):
            continue
        inner = re.search(r"\[([^\]]+)\]", requirement)
        if inner is None:
            wanted.append(Wanted(name=name, specifier=specifier, extra=asked_by))
        else:
            wanted += _of_their_extra(name, inner.group(1), asked_by)
    return wanted


def package_checks() -> Iterator[Check]:
    """One check a required package, then one for each clash between installed packages."""
    wanted = wanted_packages()
    if not wanted:
        yield Check(
            part="packages",
            name=DISTRIBUTION,
            state="warning",
            seen="not installed, and no pyproject.toml beside it",
            mend=f"pip install '{DISTRIBUTION}[all]'",
        )
    if importlib.util.find_spec("packaging") is None:
        seen = "not installed: no version below was compared"
        yield Check(part="core", name="packaging", state="problem", seen=seen, mend="pip install packaging")
        return
    for one in wanted:
        yield _package_check(one)
    yield from clashes([one.name for one in wanted])


def installed_version(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def clashes(names: Sequence[str]) -> Iterator[Check]:
    """Requirements of the named installed packages that another installed version does not meet."""
    seen = set()
    for owner in dict.fromkeys(names):
        for name, specifier in _plain_requirements(owner):
            version = installed_version(name)
            if version is None or _within(version, specifier) or (owner, name) in seen:
                continue
            seen.add((owner, name))
            yield Check(
                part="clashes",
                name=f"{owner} vs {name}",
                state="problem",
                seen=f"{owner} {installed_version(owner)} with {name} {version}",
                wanted=f"{name} {specifier}",
                mend=f"pip install '{name}{specifier}'",
            )


def _package_check(one: Wanted) -> Check:
    version = installed_version(one.name)
    part = f"extra {one.extra}" if one.extra else "core"
    install = f"pip install '{one.name}{one.specifier}'"
    if version is None:
        whole = f"pip install '{DISTRIBUTION}[{one.extra}]'" if one.extra else install
        state: State = "absent" if one.extra else "problem"
        return Check(
            part=part, name=one.name, state=state, seen="not installed", wanted=one.specifier, mend=whole
        )
    if not _within(version, one.specifier):
        return Check(
            part=part, name=one.name, state="problem", seen=version, wanted=one.specifier, mend=install
        )
    return Check(part=part, name=one.name, state="ok", seen=version, wanted=one.specifier)


def _required_lines() -> list[str]:
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        pass  # a checkout that was never installed: its pyproject.toml says the same
    source = Path(__file__).parents[2] / "pyproject.toml"
    if not source.is_file():
        return []
    project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    return list(project["dependencies"]) + [
        f"{line}; extra == '{extra}'" for extra, lines in extras.items() for line in lines
    ]


def _of_their_extra(owner: str, inner: str, asked_by: str) -> list[Wanted]:
    """What another package's extra asks for, such as redis for ``feast[redis]``."""
    try:
        lines = metadata.requires(owner) or []
    except metadata.PackageNotFoundError:
        return []
    split = [
        _split(line.partition(";")[0]) for line in lines if f"extra == '{inner}'" in line.replace('"', "'")
    ]
    return [Wanted(name=name, specifier=specifier, extra=asked_by) for name, specifier in split]


def _plain_requirements(owner: str) -> Iterator[tuple[str, str]]:
    """(name, range) of an installed package's requirements that hold here without extras."""
    try:
        lines = metadata.requires(owner) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        requirement, _, marker = line.partition(";")
        name, specifier = _split(requirement)
        if specifier and _marker_holds(marker):
            yield name, specifier


def _split(requirement: str) -> tuple[str, str]:
    matched = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?([^)]*)\)?\s*$", requirement)
    if matched is None:
        return requirement.strip(), ""
    parts = sorted(part.strip() for part in matched.group(2).split(",") if part.strip())
    return matched.group(1), ",".join(parts)


def _marker_holds(marker: str) -> bool:
    if not marker.strip():
        return True
    if "extra" in marker:
        return False
    from packaging.markers import Marker

    return Marker(marker).evaluate()


def _within(version: str, specifier: str) -> bool:
    """Whether a version lies in a range; a range that is empty or a URL accepts all."""
    if not specifier or "@" in specifier:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)
