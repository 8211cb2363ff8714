"""``qanchor preview``: a scenario on real users, before anything is registered."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.output import err, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, opened, unknown
from qanchor_plugin.errors import DeclarationError

EXAMPLES = (
    "Examples:  qanchor preview coupon_redeemer  ·  qanchor preview coupon_redeemer --sample 50 --json  ·  "
    "qanchor preview coupon_redeemer --from sources"
)
PLACES = ("auto", "lake", "sources")
SHOWN_LINES = 40


def preview(
    scenario: Annotated[str, typer.Argument(help="Name of an anchor view in the repo's files.")],
    sample: Annotated[int, typer.Option("--sample", min=1, max=1000, help="How many users to draw.")] = 20,
    place: Annotated[
        str,
        typer.Option("--from", help="lake, sources, or auto: the lake where it holds the same modalities."),
    ] = "auto",
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a user's rendered prefix, what was cut, tokens, time, neighbours and warnings.

    Reads the repo's files; writes nothing to the registry or the lake.
    """
    if place not in PLACES:
        raise typer.BadParameter(f"{place!r} is not one of {', '.join(PLACES)}", param_hint="--from")
    with noise_to_stderr(), err().status(f"reading {scenario} …"):
        found = report(scenario, sample, place, repo)
    if as_json:
        print_json(found)
    else:
        _print(found)


def report(name: str, size: int, place: str, repo: Path | None) -> dict[str, Any]:
    """Everything that preview tells, as JSON-like values.

    Raises:
        QAnchorError: no repo, files that declare amiss, an unknown scenario, sources or an engine that
            cannot be read.
    """
    from qanchor_plugin.cli.instants import to_micros
    from qanchor_plugin.cli.preview_report import preview_report
    from qanchor_plugin.cli.preview_sample import Sample, from_lake
    from qanchor_plugin.cli.preview_spark import from_sources
    from qanchor_plugin.cli.repo_files import declared_in_files
    from qanchor_plugin.errors import LakeError
    from qanchor_plugin.extras import require
    from qanchor_plugin.prefix_store import LakeTables

    with opened(repo) as here:
        declared = declared_in_files(here)
        if name not in declared.scenarios:
            raise DeclarationError(unknown("scenario", name, list(declared.scenarios)))
        scenario = declared.scenarios[name]
        profile = declared.profile_of(scenario)
        require("torch", purpose="qanchor preview")
        from qanchor_plugin.engine import QueryAnchorEngine

        engine = QueryAnchorEngine.load(scenario.engine or here.settings.engine, device=here.settings.device)
        engine.prepare_query(scenario.query)
        found: Sample | None = None
        if place != "sources":
            found = from_lake(LakeTables(here.settings.lake), profile, size)
        if found is None and place == "lake":
            raise LakeError(
                f"the lake {here.settings.lake} does not hold the modalities of profile {profile.name!r} as "
                "declared now. Use --from sources, or build it: feast apply, then feast materialize."
            )
        found = found or from_sources(here.settings, profile, size)
        return preview_report(engine, scenario, profile, found, to_micros(here.settings.now()))


def _print(found: dict[str, Any]) -> None:
    from rich.markup import escape

    console = out()
    console.print(f"[bold]{found['scenario']}[/bold]: {escape(found['query'])}", soft_wrap=True)
    console.print(
        f"engine {found['engine']}, cutoff {found['cutoff']}, {found['sample']['users']} users from the "
        f"{found['sample']['read_from']}",
        soft_wrap=True,
    )
    _print_prefix(found)
    _print_cuts(found)
    _print_timing(found["timing"])
    console.print("nearest in the sample, by cosine:")
    for one in found["neighbours"][:5]:
        near = ", ".join(f"{other['user']} {other['cosine']:+.3f}" for other in one["nearest"])
        console.print(f"    {one['user']}: {near}", soft_wrap=True)
    for warning in found["warnings"]:
        console.print(f"[yellow]warning[/yellow] {escape(warning)}", soft_wrap=True)


def _print_prefix(found: dict[str, Any]) -> None:
    from rich.table import Table

    user, lines = found["user"], found["prefix"]
    table = Table(
        title=f"prefix of {user['key']} ({user['num_events']} events)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for heading in ("token", "modality", "day", "text"):
        table.add_column(heading, overflow="fold")
    shown = (
        lines
        if len(lines) <= SHOWN_LINES
        else [*lines[: SHOWN_LINES // 2], None, *lines[-SHOWN_LINES // 2 :]]
    )
    for line in shown:
        if line is None:
            table.add_row("…", "", "", f"{len(lines) - SHOWN_LINES} more")
        else:
            table.add_row(line["kind"], line["modality"], line["day"] or "", line["text"])
    out().print(table)


def _print_cuts(found: dict[str, Any]) -> None:
    console, cut = out(), found["truncated"]
    tokens, asked = found["tokens"], found["query_tokens"]
    console.print(
        f"prefix tokens: median {tokens['median']:g}, most {tokens['max']}; "
        f"query tokens: {asked['count']} of at most {asked['max']}; "
        f"events a user: median {found['events']['median']:g}",
        soft_wrap=True,
    )
    for name, one in cut["events"].items():
        if one["events"]:
            console.print(
                f"cut: {one['events']} events of {name} beyond max_events {one['max_events']} "
                f"or max_tokens ({one['users']} users)"
            )
    if cut["groups"]["groups"]:
        groups = cut["groups"]
        console.print(
            f"cut: {groups['groups']} groups beyond max_groups {groups['max_groups']} "
            f"({groups['users']} users)"
        )
    if cut["texts"]:
        console.print(f"cut: {cut['texts']} texts at {cut['max_text_chars']} characters")


def _print_timing(timing: dict[str, Any]) -> None:
    share = "" if timing["one_more_share"] is None else f", {timing['one_more_share']:.1%} of the prefill"
    out().print(
        f"time a user ({timing['users']} together): soft tokens {timing['build_ms']:.2f} ms, "
        f"prefill {timing['prefill_ms']:.2f} ms, one more scenario {timing['one_more_ms']:.2f} ms{share}",
        soft_wrap=True,
    )
