"""``qanchor backup`` and ``qanchor restore``: lake and registry together, as one folder of files."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.output import human_bytes, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import STORE_FILE, JsonOption, RepoOption, find_repo, settings_of
from qanchor_plugin.errors import QAnchorError

BACKUP_EXAMPLES = "Examples:  qanchor backup /backups/2018-01-01  ·  qanchor backup here --json"
RESTORE_EXAMPLES = "Examples:  qanchor restore /backups/2018-01-01 --yes"
FOLDER_HELP = "Folder of the backup."
REGISTRY = "registry"
NEXT_STEP = (
    "The online store is not part of a backup: fill it from the lake with feast materialize, up to the same "
    "end. No model runs for what the lake has."
)


def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the lake and the registry, as of one instant between two runs, with a digest of every file."""
    with noise_to_stderr():
        from spark_jobs.backup import backup as job

        path = find_repo(repo)
        beside = {REGISTRY: registry_file(path), STORE_FILE: path / STORE_FILE}
        made = job(settings_of(path), folder.absolute(), beside)
    size = sum(one["bytes"] for one in made.files.values())
    if as_json:
        print_json(_told(folder, made))
        return
    out().print(
        f"{len(made.files):,} files, {human_bytes(size)}, tables {made.tables} in {folder}", soft_wrap=True
    )


def restore(
    folder: Annotated[Path, typer.Argument(help=FOLDER_HELP)],
    yes: Annotated[bool, typer.Option("--yes", help="Replace the lake and registry that stand.")] = False,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup's lake and registry in the place of those that stand; every digest is checked first.

    Users forgotten since the backup was taken are forgotten in it again.
    """
    with noise_to_stderr():
        from spark_jobs.backup import restore as job
        from spark_jobs.forget import forget_again

        path = find_repo(repo)
        settings = settings_of(path)
        made = job(settings, folder.absolute(), {REGISTRY: registry_file(path)}, yes=yes)
        again = forget_again(settings)
    answer = _told(folder, made) | {"forgotten_again": again, "next_step": NEXT_STEP}
    if as_json:
        print_json(answer)
        return
    out().print(f"restored {settings.lake} of {made.made_at[:19]}", soft_wrap=True)
    if again:
        out().print(f"{again} users that were forgotten since are forgotten again.")
    out().print(f"[yellow]{NEXT_STEP}[/yellow]", soft_wrap=True)


def registry_file(repo: Path) -> Path:
    """The registry as a file: a file registry, or an SQLite one.

    Raises:
        QAnchorError: it is kept elsewhere, and that has means of its own.
    """
    import yaml

    body = yaml.safe_load((repo / STORE_FILE).read_text(encoding="utf-8"))
    given = body.get("registry") or {}
    text = str(given if isinstance(given, str) else given.get("path", ""))
    plain = text.removeprefix("sqlite:///")
    if not text or "://" in plain or (plain == text and "://" in text):
        raise QAnchorError(
            f"registry {text!r} is not a file; lake and registry can be kept together only where it is (a "
            "path, or sqlite:///). Back such a database up by its own means, while no feast apply runs."
        )
    return (repo / plain).resolve()


def _told(folder: Path, made: Any) -> dict[str, Any]:
    return {
        "folder": str(folder.absolute()),
        "made_at": made.made_at,
        "layout": made.layout,
        "tables": made.tables,
        "num_files": len(made.files),
        "bytes": sum(one["bytes"] for one in made.files.values()),
    }
