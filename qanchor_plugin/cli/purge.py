"""``qanchor purge``: the lake of a repo is removed, because feast teardown never does that."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.output import human_bytes, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, find_repo, settings_of
from qanchor_plugin.errors import LakeError

EXAMPLES = "Examples:  qanchor purge  (only says what would go)  ·  qanchor purge --yes"


def purge(
    yes: Annotated[bool, typer.Option("--yes", help="Really remove it.")] = False,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the lake: sequences, texts, vectors, prefixes, embeddings, run history.

    Registry, online store and your own tables stay. Without --yes nothing is removed, and it ends with 1.
    """
    lake = Path(settings_of(find_repo(repo)).lake)
    parts = lake_parts(lake)
    if yes:
        remove(lake)
    answer: dict[str, Any] = {"lake": str(lake), "removed": yes and bool(parts), "parts": parts}
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    if parts and not yes:
        raise typer.Exit(1)


def lake_parts(lake: Path) -> dict[str, int]:
    """Bytes on disk by table or folder of the lake; empty when there is no lake.

    Raises:
        LakeError: the folder holds things that are not a lake's: it is not removed.
    """
    from qanchor_plugin.schemas import PAIRS_TABLE, TABLES

    if "://" in str(lake) or ":/" in str(lake):
        raise LakeError(f"lake {str(lake)!r} is not a local folder; remove it with its own store's tools.")
    if not lake.is_dir():
        return {}
    ours = {*TABLES, PAIRS_TABLE}
    foreign = sorted(one.name for one in lake.iterdir() if one.name not in ours and one.name[0] not in "._")
    if foreign:
        raise LakeError(
            f"{lake} also holds {foreign}, which are not ours; nothing was removed. Move them away first."
        )
    return {
        one.name: sum(file.stat().st_size for file in one.rglob("*") if file.is_file()) if one.is_dir() else 0
        for one in sorted(lake.iterdir())
    }


def remove(lake: Path) -> None:
    """The lake's folder is gone.

    Raises:
        LakeError: part of it could not be removed.
    """
    if not lake.is_dir():
        return
    try:
        shutil.rmtree(lake)
    except OSError as error:
        raise LakeError(f"{lake} could not be removed whole: {error}. Mend that and run it again.") from error


def _print(answer: dict[str, Any]) -> None:
    console = out()
    if not answer["parts"]:
        console.print(f"There is no lake at {answer['lake']}; nothing to remove.", soft_wrap=True)
        return
    for name, num_bytes in answer["parts"].items():
        console.print(f"    {name:24} {human_bytes(num_bytes)}")
    if answer["removed"]:
        console.print(f"Removed {answer['lake']}. feast materialize builds it again.", soft_wrap=True)
    else:
        console.print(f"This would remove {answer['lake']}. To do it: qanchor purge --yes", soft_wrap=True)
