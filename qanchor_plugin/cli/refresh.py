"""``qanchor refresh``: the jobs behind feast materialize, up to the lake and no further."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.instants import iso, parse_instant
from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, opened, unknown
from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.errors import DeclarationError

EXAMPLES = (
    "Examples:  qanchor refresh  ·  qanchor refresh --end 2018-01-01 --scenario coupon_redeemer  ·  "
    "qanchor refresh --full  ·  qanchor refresh --explain  ·  qanchor refresh --pending"
)


def refresh(
    end: Annotated[
        str | None, typer.Option("--end", metavar="INSTANT", help="Complete to this instant.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Read every source from the start.")] = False,
    scenario: Annotated[list[str] | None, typer.Option("--scenario", help="Only these; repeatable.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what would be done and why; write nothing.")
    ] = False,
    pending: Annotated[
        bool,
        typer.Option(
            "--pending", help="Instead the versions of feast apply --no-promote, beside the served."
        ),
    ] = False,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring sequences, vectors, prefixes and embeddings in the lake up to date.

    The online store is left alone: feast materialize writes it.
    """
    if explain:
        with noise_to_stderr():
            told = explained(repo, end, full, scenario, pending=pending)
        print_json(told) if as_json else out().print("\n".join(lines_of(told)), soft_wrap=True)
        return
    with noise_to_stderr():
        found = run(repo, end, full, scenario, pending=pending)
    if as_json:
        print_json(found)
        return
    out().print(f"{found['state']}: run {found['run']}, complete to {found['end']}")
    for name, counted in found["counts"].items():
        out().print(f"    {name:12} {json.dumps(counted)}", soft_wrap=True)


def run(
    repo: Path | None,
    end: str | None,
    full: bool,
    scenarios: list[str] | None,
    *,
    pending: bool = False,
) -> dict[str, Any]:
    """The refresh has run; what it counted, as JSON-like values.

    Raises:
        QAnchorError: no repo, nothing registered, an unknown scenario, or the job's own.
    """
    with _ready(repo, end, scenarios, pending) as (spark, settings, declared, until):
        from spark_jobs import refresh as jobs

        told = jobs.refresh(spark, settings, declared, end=until, scenarios=scenarios or None, full=full)
    counts = json.loads(json.dumps(told.counts, default=str))
    return {"run": told.run, "state": told.state, "end": iso(until), "counts": counts}


def explained(
    repo: Path | None,
    end: str | None,
    full: bool,
    scenarios: list[str] | None,
    *,
    pending: bool = False,
) -> dict[str, Any]:
    """What :func:`run` would do, as JSON-like values; nothing was written.

    Raises:
        As :func:`run`.
    """
    with _ready(repo, end, scenarios, pending) as (spark, settings, declared, until):
        from spark_jobs.explain import explain

        told = explain(spark, settings, declared, end=until, scenarios=scenarios or None, full=full)
    return told | {"end": iso(until)}


def lines_of(told: dict[str, Any]) -> Iterator[str]:
    """The explanation as lines for people."""
    yield f"a {'full ' if told['full'] else ''}refresh to {told['end']} would do (nothing was written):"
    for name, source in told["sources"].items():
        yield f"  source {name}: {_source_line(source)}"
    for encoder, num in told["texts"].items():
        yield f"  texts to encode ({encoder[:12]}): {num}"
    for name, look in told["prefixes"].items():
        why = f": {look['why']}" if "why" in look else ""
        reasons = f" ({_reasons(look['reasons'])})" if look["reasons"] else ""
        yield f"  users to look at, {name}: {look['users']}{reasons}{why}"
    for name, made in told["embeddings"].items():
        yield f"  answers to make at most, {name}: {made['answers']}"
        for scenario, reasons in made["scenarios"].items():
            yield f"    {scenario}: {_reasons(reasons) or 'none'}"
    seconds = told["estimated_seconds"]
    known = {job: taken for job, taken in seconds.items() if taken is not None}
    yield f"  estimated seconds, from past runs: {_reasons(known) or 'no past run tells'}"


def _source_line(source: dict[str, Any]) -> str:
    if source["read"] == "nothing":
        return "stands where it stood"
    rest = {name: num for name, num in source.items() if name not in ("read", "why", "batch", "users")}
    why = f" because {source['why']}" if "why" in source else ""
    return (
        f"{source['read']}, batch {source['batch']}, {_reasons(rest)}, users {_reasons(source['users'])}{why}"
    )


def _reasons(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {num}" for name, num in counts.items())


@contextmanager
def _ready(
    repo: Path | None, end: str | None, scenarios: list[str] | None, pending: bool
) -> Iterator[tuple[Any, Settings, Declarations, datetime]]:
    """Session, settings, declarations and end, all known to be there."""
    from qanchor_plugin.extras import require

    require("pyspark", purpose="qanchor refresh")
    with opened(repo) as here:
        declared = here.pending() if pending else here.declarations()
        for name in scenarios or []:
            if name not in declared.scenarios:
                raise DeclarationError(unknown("scenario", name, list(declared.scenarios)))
        from spark_jobs.session import get_session

        until = here.settings.now() if end is None else parse_instant("--end", end)
        yield get_session(here.settings, app_name="qanchor-refresh"), here.settings, declared, until
