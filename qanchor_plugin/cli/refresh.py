"""``qanchor refresh``: the jobs behind feast materialize, up to the lake and no further."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.instants import iso, parse_instant
from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, opened, unknown
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
    asked = Asked(repo=repo, end=end, full=full, scenarios=scenario, pending=pending)
    if explain:
        with noise_to_stderr():
            told = explained(asked)
        print_json(told) if as_json else out().print("\n".join(lines_of(told)), soft_wrap=True)
        return
    with noise_to_stderr():
        found = run(asked)
    if as_json:
        print_json(found)
        return
    out().print(f"{found['state']}: run {found['run']}, complete to {found['end']}")
    for name, counted in found["counts"].items():
        out().print(f"    {name:12} {json.dumps(counted)}", soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asked for: see its options."""

    repo: Path | None
    end: str | None
    full: bool
    scenarios: list[str] | None
    pending: bool


def run(asked: Asked) -> dict[str, Any]:
    """The refresh has run; what it counted, as JSON-like values.

    Raises:
        QAnchorError: no repo, nothing registered, an unknown scenario, or the job's own.
    """
    with _ready(asked) as call:
        from spark_jobs.refresh import refresh as job

        told = call(job)
    counts = json.loads(json.dumps(told.counts, default=str))
    return {"run": told.run, "state": told.state, "end": iso(told.end), "counts": counts}


def explained(asked: Asked) -> dict[str, Any]:
    """What :func:`run` would do, as JSON-like values; nothing was written.

    Raises:
        As :func:`run`.
    """
    with _ready(asked) as call:
        from spark_jobs.explain import explain

        told = call(explain)
    return told | {"end": iso(datetime.fromisoformat(told["end"]))}


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
def _ready(asked: Asked) -> Iterator[Callable[[Callable[..., Any]], Any]]:
    """Calls a job with session, settings, declarations and end, all known to be there."""
    from qanchor_plugin.extras import require

    require("pyspark", purpose="qanchor refresh")
    with opened(asked.repo) as here:
        declared = here.declarations(pending=asked.pending)
        for name in asked.scenarios or []:
            if name not in declared.scenarios:
                raise DeclarationError(unknown("scenario", name, list(declared.scenarios)))
        from spark_jobs.session import get_session

        until = here.settings.now() if asked.end is None else parse_instant("--end", asked.end)
        session = get_session(here.settings, app_name="qanchor-refresh")
        given = {"end": until, "scenarios": asked.scenarios or None, "full": asked.full}
        yield lambda job: job(session, here.settings, declared, **given)
