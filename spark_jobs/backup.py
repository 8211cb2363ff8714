"""Lake and registry as one folder of files, each with its digest; and back again."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import LakeError
from qanchor_plugin.prefix_store.forgotten import FOLDER as FORGOTTEN
from spark_jobs.layout import LAYOUT, LAYOUT_FILE, layout_of
from spark_jobs.ledger import lake_folder, tables_of
from spark_jobs.lock import LOCK, only_run
from spark_jobs.references import SNAPSHOTS
from spark_jobs.runs import RunClock
from spark_jobs.table_files import LOG, TableFiles

MANIFEST = "manifest.json"
FORMAT = 1
_NUMBERED = re.compile(r"(\d{20})\.")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a backup holds.

    Attributes:
        made_at: when, by the wall clock.
        layout: of the lake.
        tables: table to its Delta version.
        files: path within the backup to its size and digest.
    """

    made_at: str
    layout: int
    tables: dict[str, int]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


def backup(settings: Settings, target: Path, beside: Mapping[str, Path] | None = None) -> Manifest:
    """``target`` holds the lake as of one instant between two runs, and the files beside it.

    Args:
        target: a folder that is not there yet.
        beside: further files by name, such as the registry's; copied while no run may change the lake.

    Raises:
        LakeError: the target stands, or cannot be written. JobBusyError: a run holds the lake.
    """
    if target.exists():
        raise LakeError(f"{target} is there already; nothing was written. Give the name of a new folder.")
    folder, scratch = lake_folder(settings.lake), target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        with only_run(folder, RunClock(settings).run):
            tables = tables_of(folder)
            for name, table in tables.items():
                for path in _files_of(table):
                    _copy(path, scratch / "lake" / name / path.relative_to(table.folder))
            for path in _files_beside_tables(folder, set(tables)):
                _copy(path, scratch / "lake" / path.relative_to(folder))
            for name, path in (beside or {}).items():
                _copy(path, scratch / "beside" / name)
            manifest = Manifest(
                made_at=datetime.now(UTC).isoformat(),
                layout=layout_of(folder),
                tables={name: table.version for name, table in tables.items()},
                files={str(path.relative_to(scratch)): _fact(path) for path in _files(scratch)},
            )
        (scratch / MANIFEST).write_text(json.dumps({"format": FORMAT, **vars(manifest)}, indent=1))
        scratch.rename(target)
    except OSError as error:
        raise LakeError(f"the backup {target} could not be written ({error}); there is none.") from error
    return manifest


def read_backup(source: Path) -> Manifest:
    """What the backup holds, every file of it as it was written.

    Raises:
        LakeError: it is no backup, of a newer layout, or files are absent or altered; names them.
    """
    try:
        told = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
        if told.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        manifest = Manifest(**told)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{source} is no backup of this version ({error}). Nothing was restored.") from error
    if manifest.layout > LAYOUT:
        raise LakeError(
            f"backup {source} has layout {manifest.layout}; this version knows 1 to {LAYOUT}. Nothing was "
            "restored. Install the version that made it, or a newer one."
        )
    wrong = [name for name, fact in manifest.files.items() if _fact_or_none(source / name) != fact]
    if wrong:
        raise LakeError(
            f"{len(wrong)} files of backup {source} are absent or altered, such as {wrong[:3]}. Nothing was "
            "restored. Take another backup."
        )
    return manifest


def restore(settings: Settings, source: Path, beside: Mapping[str, Path], *, yes: bool) -> Manifest:
    """The lake and the files beside it are those of the backup; who was forgotten since is on the list still.

    Raises:
        LakeError: as :func:`read_backup`; or something stands in the way and ``yes`` is not said.
        JobBusyError: a run holds the lake that would be replaced.
    """
    manifest = read_backup(source)
    folder = Path(settings.lake.removeprefix("file://"))
    standing = [str(one) for one in (folder, *beside.values()) if one.exists()]
    if standing and not yes:
        raise LakeError(f"{standing} would be replaced by {source}; nothing was. To do it, say --yes.")
    scratch = folder.with_name(f".{folder.name}.restoring")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(source / "lake", scratch)
        if folder.is_dir():
            with only_run(folder, "restore"):
                _keep_the_list(folder, scratch)
                _exchange(folder, scratch)
        else:
            scratch.rename(folder)
        for name, path in beside.items():
            if (source / "beside" / name).is_file():
                _copy(source / "beside" / name, path)
    except OSError as error:
        raise LakeError(
            f"{source} could not be restored whole ({error}). Make room or mend the permission, then run the "
            "same command again."
        ) from error
    return manifest


def _exchange(folder: Path, scratch: Path) -> None:
    old = folder.with_name(f".{folder.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old)


def _keep_the_list(folder: Path, scratch: Path) -> None:
    """The present list of the forgotten goes on: it is never shorter than the backup's."""
    if (folder / FORGOTTEN).is_dir():
        shutil.rmtree(scratch / FORGOTTEN, ignore_errors=True)
        shutil.copytree(folder / FORGOTTEN, scratch / FORGOTTEN)


def _files_of(table: TableFiles) -> Iterator[Path]:
    """Data files of the version seen, and the log up to it."""
    yield from (one.path for one in table.files())
    log = table.folder / LOG
    for path in sorted(log.iterdir()):
        numbered = _NUMBERED.match(path.name)
        if path.suffix in (".json", ".parquet") and numbered and int(numbered.group(1)) <= table.version:
            yield path
    last = log / "_last_checkpoint"
    if last.is_file() and json.loads(last.read_text())["version"] <= table.version:
        yield last


def _files_beside_tables(folder: Path, tables: set[str]) -> Iterator[Path]:
    """Snapshots, list of the forgotten, receipts, prompts, layout; never the lock."""
    for path in _files(folder):
        top = path.relative_to(folder).parts[0]
        if top in tables or top == LOCK or (top.startswith(".") and top != LAYOUT_FILE):
            continue
        if top == SNAPSHOTS and any(part.startswith(".writing-") for part in path.parts):
            continue
        yield path


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.rglob("*") if one.is_file())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _fact(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        told = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return {"bytes": path.stat().st_size, "digest": told}


def _fact_or_none(path: Path) -> dict[str, Any] | None:
    return _fact(path) if path.is_file() else None
