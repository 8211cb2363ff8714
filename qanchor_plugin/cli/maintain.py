"""``qanchor maintain``: replaced rows retired, small files folded, old files vacuumed."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, find_repo, settings_of

EXAMPLES = (
    "Examples:  qanchor maintain --dry-run  ·  qanchor maintain  ·  qanchor maintain --keep-embeddings 400"
)


def maintain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be done.")] = False,
    keep_files: Annotated[
        float, typer.Option("--keep-files", metavar="DAYS", help="Replaced files stay this long; 1 or more.")
    ] = 7,
    keep_prefixes: Annotated[
        float, typer.Option("--keep-prefixes", metavar="DAYS", help="Prefixes that newer ones replaced.")
    ] = 30,
    keep_embeddings: Annotated[
        float | None,
        typer.Option("--keep-embeddings", metavar="DAYS", help="As-served history; not given: all of it."),
    ] = None,
    min_files: Annotated[
        int, typer.Option("--min-files", help="Fold a partition that has so many small files.")
    ] = 4,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the lake small: retention, compaction and VACUUM in one job, never under a running refresh.

    Nobody's newest row goes, and readers see the same rows at every commit.
    """
    with noise_to_stderr():
        from spark_jobs.maintain import MaintainPlan
        from spark_jobs.maintain import maintain as job

        plan = MaintainPlan(
            keep_files=keep_files,
            keep_prefixes=keep_prefixes,
            keep_embeddings=keep_embeddings,
            min_files=min_files,
            dry_run=dry_run,
        )
        found = asdict(job(settings_of(find_repo(repo)), plan))
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for heading in ("table", "files", "after", "vacuumed", "rows retired"):
        shown.add_column(heading, justify="left" if heading == "table" else "right")
    for name, counts in found["tables"].items():
        numbers = [
            counts.get(one) for one in ("files_before", "files_after", "files_vacuumed", "rows_retired")
        ]
        shown.add_row(name, *("-" if one is None else f"{one:,}" for one in numbers))
    out().print(shown)
    done = "nothing was changed (--dry-run)" if found["dry_run"] else f"done, run {found['run']}"
    out().print(f"{done}, {found['seconds']:.1f} s", soft_wrap=True)
