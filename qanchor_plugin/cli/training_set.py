"""``qanchor training-set``: features as of every row's instant, of any length, resumable."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.instants import human_duration
from qanchor_plugin.cli.output import err, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, opened
from qanchor_plugin.errors import InputDataError

EXAMPLES = (
    "Examples:  qanchor training-set --entities labels.parquet --features churn_risk:embedding --output "
    "train/ --checkpoint work/  ·  the same with --dry-run first"
)
MODES = ("exact", "as_served")


def training_set(
    entities: Annotated[
        str, typer.Option("--entities", metavar="FILE|SQL", help="Keys and event_timestamp: .parquet, .csv.")
    ],
    features: Annotated[
        list[str], typer.Option("--features", metavar="VIEW:FEATURE", help="Repeatable, or with commas.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FOLDER", help="Parquet; must not be there yet.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FOLDER", help="Remembers what was done.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", help="exact or as_served, for every anchor view.")
    ] = None,
    rows_per_chunk: Annotated[
        int | None, typer.Option("--rows-per-chunk", min=1, help="By default what takes five minutes.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say rows, distinct prefills and time.")
    ] = False,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retrieve a training set chunk by chunk; run again after an interruption, and it goes on."""
    if mode is not None and mode not in MODES:
        raise typer.BadParameter(f"{mode!r} is not one of {', '.join(MODES)}", param_hint="--mode")
    if output is None and not dry_run:
        raise typer.BadParameter("is needed unless --dry-run", param_hint="--output")
    names = tuple(one.strip() for given in features for one in given.split(",") if one.strip())
    with noise_to_stderr():
        if dry_run:
            found = planned(repo, _absolute(entities), names, mode)
        else:
            assert output is not None
            where = checkpoint or output.with_name(output.name + ".checkpoint")
            found = built(
                repo, _absolute(entities), names, output.resolve(), where.resolve(), mode, rows_per_chunk
            )
    if as_json:
        print_json(found)
    elif dry_run:
        _print_plan(found)
    else:
        _print_report(found)


def planned(repo: Path | None, entities: str, features: tuple[str, ...], mode: str | None) -> dict[str, Any]:
    """What the retrieval would take, as JSON-like values; nothing is kept.

    Raises:
        QAnchorError: as in :func:`built`.
    """
    import tempfile
    from dataclasses import asdict

    from qanchor_plugin.extras import require

    require("pyspark", purpose="qanchor training-set")
    with opened(repo) as here, tempfile.TemporaryDirectory() as scratch:
        from feast import FeatureStore

        from qanchor_plugin.feast_ext.spark_session import session
        from qanchor_plugin.feast_ext.training_plan import estimated
        from qanchor_plugin.feast_ext.training_rows import asked_of, stage

        store = FeatureStore(config=here.config)
        asked, spark = asked_of(store, features), session(here.settings)
        num_rows = stage(spark, entities, asked, f"{scratch}/rows")
        if not num_rows:
            raise InputDataError(f"--entities {entities!r} holds no row; there is nothing to retrieve.")
        rows = spark.read.parquet(f"{scratch}/rows")
        return asdict(estimated(store, rows, asked, num_rows=num_rows, mode=mode))


def built(
    repo: Path | None,
    entities: str,
    features: tuple[str, ...],
    output: Path,
    checkpoint: Path,
    mode: str | None,
    rows_per_chunk: int | None,
) -> dict[str, Any]:
    """The report of a retrieval that ran to its end, now or earlier.

    Raises:
        QAnchorError: no repo, unknown features, unusable rows, a checkpoint of other inputs, or the read's.
    """
    from qanchor_plugin.extras import require

    require("pyspark", purpose="qanchor training-set")
    with opened(repo) as here:
        from feast import FeatureStore

        from qanchor_plugin.feast_ext.training_set import Request, build_training_set

        request = Request(
            entities=entities,
            features=features,
            output=output,
            checkpoint=checkpoint,
            mode=mode,
            rows_per_chunk=rows_per_chunk,
        )
        return build_training_set(FeatureStore(config=here.config), request)


def _absolute(entities: str) -> str:
    """A path as seen from where the command was typed; SQL stays."""
    path = Path(entities)
    try:
        return str(path.resolve()) if path.exists() else entities
    except OSError:  # an SQL text may be longer than a file's name can be
        return entities


def _print_plan(found: dict[str, Any]) -> None:
    console = out()
    console.print(f"{found['rows']:,} rows, {found['prefills']:,} distinct prefills")
    for one in found["reads"]:
        console.print(
            f"    {one['name']}: {one['scenarios']} scenarios, {one['users']:,} users, {one['rows']:,} rows, "
            f"{one['prefills']:,} prefills, {one['blind']:,} rows that can see nothing",
            soft_wrap=True,
        )
    if found["seconds_per_prefill"] is not None:
        console.print(f"    {1000 * found['seconds_per_prefill']:.1f} ms a prefill with all its questions")
    console.print(
        f"about {human_duration(found['seconds'])}, in {found['chunks']} chunks "
        f"(a sample took {human_duration(found['sample_seconds'])})"
    )


def _print_report(found: dict[str, Any]) -> None:
    from qanchor_plugin.feast_ext.training_report import MEANING

    console = out()
    console.print(
        f"{found['rows']:,} rows in {found['output']}, {found['chunks']} chunks of which "
        f"{found['resumed_chunks']} stood already, {human_duration(found['seconds'])}",
        soft_wrap=True,
    )
    for view, kinds in found["views"].items():
        console.print(f"{view}")
        for kind, count in kinds.items():
            if count:
                console.print(f"    {count:>12,} {kind:12} {MEANING[kind]}", soft_wrap=True)
    if found["rows_to_look_at"]:
        console.print(f"which rows these are: {found['rows_to_look_at']}", soft_wrap=True)
    if found["lake_changed_meanwhile"]:
        err().print(
            "[yellow]the lake was refreshed between chunks: early ones saw an older lake than late ones[/]"
        )
