"""``qanchor status``: what stands in the lake, how fresh it is and whom it covers."""

from pathlib import Path
from typing import Any

from qanchor_plugin.cli.instants import human_duration, iso
from qanchor_plugin.cli.output import human_bytes, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, opened

EXAMPLES = "Examples:  qanchor status  ·  qanchor status --json  ·  qanchor status --repo my_store"


def status(repo: RepoOption = None, as_json: JsonOption = False) -> None:
    """Tables, last runs, watermarks, coverage of each scenario, bad rows, point-in-time notes.

    Reads Delta without a JVM.
    """
    with noise_to_stderr():
        found = report(repo)
    if as_json:
        print_json(found)
    else:
        _print(found)


def report(repo: Path | None) -> dict[str, Any]:
    """Everything that status tells, as JSON-like values.

    Raises:
        QAnchorError: no repo, nothing registered, or a lake that cannot be read.
    """
    from qanchor_plugin.backend.lake_reader import LakeReader
    from qanchor_plugin.cli import lake_report, staleness
    from qanchor_plugin.prefix_store import LakeTables

    with opened(repo) as here:
        declared, settings = here.declarations(), here.settings
        tables = LakeTables(settings.lake)
        reader = LakeReader(tables)
        stands = tables.exists("behaviour_sequences") or tables.exists("job_runs")
        sources = staleness.source_report(tables, declared)
        scenarios = [
            lake_report.scenario_report(reader, declared, one, settings.now())
            for one in declared.scenarios.values()
        ]
        for told, one in zip(scenarios, declared.scenarios.values(), strict=True):
            complete_to = lake_report.complete_to(reader, declared, one)
            told["stale_because"] = staleness.stale_because(
                tables, declared, one, complete_to=complete_to, now=settings.now(), sources=sources
            )
        return {
            "project": declared.project,
            "lake": settings.lake,
            "now": iso(settings.now()),
            "lake_exists": stands,
            "next_step": "" if stands else next_step(iso(settings.now())),
            "tables": lake_report.table_report(tables) if stands else [],
            "runs": lake_report.newest_runs(tables),
            "scenarios": scenarios,
            "sources": sources,
            "failing": staleness.failing_jobs(tables),
            "bad_rows": lake_report.bad_rows(tables, declared),
            "point_in_time": lake_report.point_in_time_notes(declared),
        }


def next_step(now: str | None) -> str:
    """What builds a lake that does not exist yet."""
    return (
        f"the lake does not exist yet; build it: feast materialize 1970-01-01T00:00:00 {str(now).rstrip('Z')}"
    )


def _print(found: dict[str, Any]) -> None:
    from qanchor_plugin.cli.lake_report import USED_ALL_THE_SAME

    console = out()
    clock = f"now is {found['now']}"
    console.print(f"project [bold]{found['project']}[/bold], lake {found['lake']}, {clock}", soft_wrap=True)
    if not found["lake_exists"]:
        console.print(f"[yellow]{found['next_step']}[/yellow]", soft_wrap=True)
    else:
        _print_tables(found["tables"])
    _print_runs(found["runs"])
    _print_scenarios(found["scenarios"])
    _print_reasons(found["scenarios"])
    for name, reasons in found["bad_rows"].items():
        told = ", ".join(
            f"{number} {reason}{' (used)' if reason in USED_ALL_THE_SAME else ''}"
            for reason, number in reasons.items()
        )
        console.print(f"[yellow]bad rows[/yellow] of {name}: {told}", soft_wrap=True)
    for note in found["point_in_time"]:
        console.print(f"[dim]point in time[/dim] {note}", soft_wrap=True)


def _print_reasons(scenarios: list[dict[str, Any]]) -> None:
    """Each reason once, with the scenarios that it makes stale."""
    from rich.markup import escape

    reasons: dict[str, list[str]] = {}
    for one in scenarios:
        for reason in one["stale_because"]:
            reasons.setdefault(reason, []).append(one["scenario"])
    for reason, names in reasons.items():
        out().print(f"[yellow]stale[/yellow] {', '.join(names)}: {escape(reason)}", soft_wrap=True)


def _print_tables(tables: list[dict[str, Any]]) -> None:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for heading in ("table", "rows", "size", "files", "version", "committed"):
        shown.add_column(
            heading, justify="right" if heading in ("rows", "size", "files", "version") else "left"
        )
    for one in tables:
        if not one["exists"]:
            shown.add_row(one["table"], "-", "-", "-", "-", "not there")
            continue
        size = human_bytes(one["bytes"])
        committed = str(one["committed_at"])[:19]
        shown.add_row(
            one["table"], f"{one['rows']:,}", size, str(one["files"]), str(one["version"]), committed
        )
    out().print(shown)


def _print_runs(runs: list[dict[str, Any]]) -> None:
    """One line a run and state: jobs that have run again since stand in the newer run's line."""
    from rich.markup import escape

    for run, state in dict.fromkeys((one["run"], one["state"]) for one in runs):
        jobs = [one for one in runs if (one["run"], one["state"]) == (run, state)]
        lasted = "" if jobs[0]["seconds"] is None else f", {human_duration(jobs[0]['seconds'])}"
        colour = "green" if state == "succeeded" else "red"
        names = ", ".join(one["job"] for one in jobs)
        line = f"last run of {names}: [{colour}]{state}[/{colour}], {str(jobs[0]['started_at'])[:19]}{lasted}"
        messages = "; ".join(one["message"] for one in jobs if one["message"])
        out().print(line + (f": {escape(messages)}" if messages else ""), soft_wrap=True)


def _print_scenarios(scenarios: list[dict[str, Any]]) -> None:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for heading in ("scenario", "complete to", "age", "ttl", "fresh", "users covered"):
        shown.add_column(heading)
    for one in scenarios:
        age = "-" if one["age_seconds"] is None else human_duration(one["age_seconds"])
        ttl = "for ever" if not one["ttl_seconds"] else human_duration(one["ttl_seconds"])
        fresh = "[green]yes[/green]" if one["fresh"] else "[red]no[/red]"
        share = "" if one["coverage"] is None else f" ({one['coverage']:.1%})"
        covered = f"{one['covered']:,} of {one['known']:,}{share}"
        shown.add_row(one["scenario"], str(one["complete_to"] or "never")[:19], age, ttl, fresh, covered)
    out().print(shown)
