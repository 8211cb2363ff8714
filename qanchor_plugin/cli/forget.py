"""``qanchor forget``: users leave the lake, the online store and the caches; a receipt stays."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, opened, profile_named
from qanchor_plugin.errors import InputDataError

EXAMPLES = (
    "Examples:  qanchor forget --user 7  ·  qanchor forget --users leavers.txt --json  ·  "
    "qanchor forget --user 7 --lift  (may be read again)"
)


def forget(
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="KEY", help="As in qanchor embed; repeatable.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option("--users", metavar="FILE", help="One key a line, written as for --user.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Whose keys these are; needed where there are several.")
    ] = None,
    lift: Annotated[
        bool, typer.Option("--lift", help="Take them off the list of the forgotten; nothing is removed.")
    ] = False,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove users: every table, old file and log of the lake, online store, caches, training pairs.

    Clean your sources as well. Texts that only they had go too. Run it again after a fault: it goes on.
    """
    with noise_to_stderr():
        found = run(repo, _keys(user, users), profile, lift)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.get("faults"):
        raise typer.Exit(1)


def run(repo: Path | None, keys: list[str], profile: str | None, lift: bool) -> dict[str, Any]:
    """The receipt, as JSON-like values.

    Raises:
        QAnchorError: no repo, a key that is none, or the job's own.
    """
    from qanchor_plugin.backend.worker_caches import forget_hooks
    from qanchor_plugin.cli.user_keys import parse_user, user_bytes
    from qanchor_plugin.feast_ext.online_forget import forget_online
    from qanchor_plugin.prefix_store import forget_here
    from qanchor_plugin.prefix_store.forgotten import ForgottenUsers

    with opened(repo) as here:
        declared = here.declarations()
        bodies = {one.entities: one for one in declared.profiles.values()}
        chosen = (
            next(iter(bodies.values()))
            if profile is None and len(bodies) == 1
            else profile_named(declared, profile)
        )
        parsed = [parse_user(text, chosen.entities) for text in keys]
        named = {user_bytes(one, chosen.entities): _readable(chosen.entities, one) for one in parsed}
        if lift:
            return {"lifted": ForgottenUsers(here.settings.lake).lift(named)}
        from spark_jobs.forget import forget as job

        places: dict[str, Any] = {"online store": partial(forget_online, here.config)}
        places |= forget_hooks(here.settings.worker) | forget_here(here.settings)
        receipt = job(here.settings, named, elsewhere=places)
        path = str(Path(here.settings.lake) / "_receipts" / f"{receipt.run}.json")
        return asdict(receipt) | {"receipt": path}


def _readable(entities: Any, key: Mapping[str, Any]) -> str:
    from spark_jobs.identity import readable_key

    return readable_key(entities, [key[one.join_key] for one in entities])


def _keys(given: list[str] | None, path: Path | None) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []
    if path is not None and not path.is_file():
        raise InputDataError(f"--users {path}: there is no such file. Give one key a line.")
    keys = [*(given or ()), *(line.strip() for line in lines if line.strip())]
    if not keys:
        raise InputDataError("nobody is named: give --user KEY or --users FILE.")
    return list(dict.fromkeys(keys))


def _print(found: dict[str, Any]) -> None:
    console = out()
    if "lifted" in found:
        console.print(f"{found['lifted']} taken off the list; qanchor refresh --full reads them again.")
        return
    console.print(f"{len(found['users'])} users: {found['state']}, run {found['run']}", soft_wrap=True)
    for name, counts in found["tables"].items():
        told = ", ".join(f"{num} {what.replace('_', ' ')}" for what, num in counts.items())
        console.print(f"    {name:22} {told}", soft_wrap=True)
    for name, num in found["elsewhere"].items():
        console.print(f"    {name:22} {num} entries", soft_wrap=True)
    for fault in found["faults"]:
        console.print(f"[red]not done[/red] {fault}", soft_wrap=True)
    console.print(f"[yellow]{found['note']}[/yellow]", soft_wrap=True)
    console.print(f"receipt: {found['receipt']}", soft_wrap=True)
