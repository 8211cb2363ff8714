"""``qanchor doctor``: what is installed, what clashes, and how to mend it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, find_repo, settings_of
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import QAnchorError

if TYPE_CHECKING:
    from qanchor_plugin.cli.doctor_packages import Check

EXAMPLES = "Examples:  qanchor doctor  ·  qanchor doctor --json  ·  qanchor doctor --repo my_store"
MARKS = {
    "ok": "[green]ok[/green]",
    "absent": "[dim]absent[/dim]",
    "warning": "[yellow]warning[/yellow]",
    "problem": "[bold red]problem[/bold red]",
}


def doctor(repo: RepoOption = None, as_json: JsonOption = False) -> None:
    """Look over packages, Java, device, jars, weights and the lake; say how to mend each.

    Ends with 1 when there is a problem. What is merely absent (an extra nobody installed) is none.
    """
    with noise_to_stderr():
        checks = all_checks(repo)
    problems = [one for one in checks if one.state == "problem"]
    if as_json:
        print_json({"ok": not problems, "checks": [one.to_dict() for one in checks]})
    else:
        _print(checks)
    if problems:
        raise typer.Exit(1)


def all_checks(repo: Path | None) -> "list[Check]":
    """Every check there is; those of a feature repo when one is given or stands here."""
    from qanchor_plugin.cli.doctor_machine import lake_checks, machine_checks
    from qanchor_plugin.cli.doctor_packages import Check, State, package_checks

    checks = [*package_checks(), *machine_checks()]
    try:
        folder = find_repo(repo)
    except QAnchorError as error:
        state: State = "absent" if repo is None else "problem"
        return [*checks, Check(part="repo", name="feature repo", state=state, seen=str(error))]
    return [*checks, *lake_checks(folder, _settings(folder))]


def _settings(folder: Path) -> Settings | QAnchorError:
    try:
        return settings_of(folder)
    except QAnchorError as error:
        return error


def _print(checks: "Sequence[Check]") -> None:
    from rich.markup import escape
    from rich.table import Table

    console = out()
    for part in dict.fromkeys(one.part for one in checks):
        table = Table(title=part, title_justify="left", box=None, pad_edge=False, show_header=False)
        for one in checks:
            if one.part == part:
                wanted = f"[dim]wants {escape(one.wanted)}[/dim]" if one.wanted else ""
                table.add_row(MARKS[one.state], one.name, escape(one.seen), wanted)
        console.print(table)
    amiss = [one for one in checks if one.state in ("problem", "warning")]
    for one in amiss:
        console.print(f"{MARKS[one.state]} {escape(one.name)}: {escape(one.seen)}", soft_wrap=True)
        if one.mend:
            console.print(f"    mend: {escape(one.mend)}", soft_wrap=True)
    if not any(one.state == "problem" for one in checks):
        console.print("[green]No problem found.[/green]")
