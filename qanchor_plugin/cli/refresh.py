"""``qanchor refresh``: the jobs behind feast materialize, up to the lake and no further."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.instants import iso, parse_instant
from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, opened, unknown
from qanchor_plugin.errors import DeclarationError

EXAMPLES = (
    "Examples:  qanchor refresh  ·  qanchor refresh --end 2018-01-01 --scenario coupon_redeemer  ·  "
    "qanchor refresh --full"
)


def refresh(
    end: Annotated[
        str | None, typer.Option("--end", metavar="INSTANT", help="Complete to this instant.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Read every source from the start.")] = False,
    scenario: Annotated[list[str] | None, typer.Option("--scenario", help="Only these; repeatable.")] = None,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring sequences, vectors, prefixes and embeddings in the lake up to date.

    The online store is left alone: feast materialize writes it.
    """
    with noise_to_stderr():
        found = run(repo, end, full, scenario)
    if as_json:
        print_json(found)
        return
    out().print(f"{found['state']}: run {found['run']}, complete to {found['end']}")
    for name, counted in found["counts"].items():
        out().print(f"    {name:12} {json.dumps(counted)}", soft_wrap=True)


def run(repo: Path | None, end: str | None, full: bool, scenarios: list[str] | None) -> dict[str, Any]:
    """The refresh has run; what it counted, as JSON-like values.

    Raises:
        QAnchorError: no repo, nothing registered, an unknown scenario, or the job's own.
    """
    from qanchor_plugin.extras import require

    require("pyspark", purpose="qanchor refresh")
    with opened(repo) as here:
        declared = here.declarations()
        for name in scenarios or []:
            if name not in declared.scenarios:
                raise DeclarationError(unknown("scenario", name, list(declared.scenarios)))
        from spark_jobs import refresh as jobs
        from spark_jobs.session import get_session

        until = here.settings.now() if end is None else parse_instant("--end", end)
        told = jobs.refresh(
            get_session(here.settings, app_name="qanchor-refresh"),
            here.settings,
            declared,
            end=until,
            scenarios=scenarios or None,
            full=full,
        )
    counts = json.loads(json.dumps(told.counts, default=str))
    return {"run": told.run, "state": told.state, "end": iso(until), "counts": counts}
