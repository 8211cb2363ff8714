"""``qanchor init``: a feature repo over a person's own tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption
from qanchor_plugin.errors import InputDataError, QAnchorError

if TYPE_CHECKING:
    import pyarrow as pa

    from qanchor_plugin.cli.init_files import NewRepo

EXAMPLES = (
    "Examples:  qanchor init shop --source lake/purchases --source lake/customers.parquet  ·  "
    "qanchor init shop --source bought=lake/t17 --entity customer_id  ·  "
    "qanchor init shop --source db.purchases"
)


def init(
    folder: Annotated[
        Path, typer.Argument(help="New folder, or one without any of the files to be written.")
    ],
    source: Annotated[
        list[str],
        typer.Option(
            "--source",
            metavar="[NAME=]TABLE",
            help="Delta folder, parquet file or folder, or catalogue table.",
        ),
    ],
    entity: Annotated[
        list[str] | None,
        typer.Option("--entity", metavar="COLUMN", help="The user's key; repeat it for a composite key."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the tables' schemas, propose modalities and texts, and write a feature repo to edit."""
    with noise_to_stderr():
        new = propose(folder, source, entity or [])
        files = new.files()
        write_files(folder, files)
    if as_json:
        print_json(_answer(new, list(files)))
    else:
        _print(new, list(files))


def propose(folder: Path, sources: Sequence[str], entities: Sequence[str]) -> "NewRepo":
    """What the files of the new repo will say.

    Raises:
        InputDataError: a source that cannot be read or used, two of one name, or no shared key.
    """
    from qanchor_plugin.cli.init_columns import guess_modality
    from qanchor_plugin.cli.init_entity import guess_entities
    from qanchor_plugin.cli.init_files import NewRepo
    from qanchor_plugin.cli.init_tables import read_source, slug, span

    refuse_existing(folder)
    tables = [read_source(one, read_catalogue=_read_catalogue) for one in sources]
    names = [table.name for table in tables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputDataError(f"two sources are named {twice}; name them apart: --source NAME=TABLE.")
    guessed = guess_entities(tables, entities)
    keys = tuple(one.join_key for one in guessed)
    guesses = tuple(guess_modality(table, keys) for table in tables)
    spans = [span(guess.table, guess.event_at) for guess in guesses if guess.event_at]
    return NewRepo(
        folder=folder,
        project=slug(folder.resolve().name),
        entities=guessed,
        guesses=guesses,
        oldest=min((low for low, _ in spans), default=None),
        newest=max((high for _, high in spans), default=None),
    )


def refuse_existing(folder: Path) -> None:
    """Nothing when no file would be overwritten.

    Raises:
        QAnchorError: naming those that stand there.
    """
    names = (
        "feature_store.yaml",
        "entities.py",
        "sources.py",
        "profiles.py",
        "scenarios/example.py",
        ".feastignore",
    )
    there = [name for name in names if (folder / name).exists()]
    if folder.exists() and not folder.is_dir():
        raise QAnchorError(f"{folder} is a file; give a new folder.")
    if there:
        raise QAnchorError(f"{folder} already holds {there}; nothing was written. Give another folder.")


def write_files(folder: Path, files: dict[str, str]) -> None:
    """The files stand below the folder; none of them stood there before.

    Raises:
        QAnchorError: the folder cannot be written.
    """
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        raise QAnchorError(
            f"cannot write {folder}: {error}. Give a folder that this account may write."
        ) from error


def _read_catalogue(name: str) -> "pa.Table":
    from qanchor_plugin.cli.init_tables import SAMPLE_ROWS
    from qanchor_plugin.declare import Settings
    from qanchor_plugin.extras import require

    errors = require("pyspark.errors", purpose=f"reading the catalogue table {name!r}")
    from spark_jobs.session import get_session

    settings = Settings(lake=str(Path("data/lake").resolve()), log_folder=str(Path("logs").resolve()))
    try:
        return get_session(settings).table(name).limit(SAMPLE_ROWS + 1).toArrow()
    except errors.AnalysisException as error:
        raise InputDataError(
            f"source {name!r} is neither a path here nor a table of Spark's catalogue "
            f"({error.getCondition()}). "
            "Give the folder of a Delta table, a parquet file or folder, or a table that Spark knows."
        ) from error


def _answer(new: "NewRepo", files: list[str]) -> dict[str, object]:
    from dataclasses import asdict

    from qanchor_plugin.cli.init_files import summary

    return {
        "folder": str(new.folder),
        "files": files,
        "project": new.project,
        "entities": [asdict(one) for one in new.entities],
        "profile": new.profile,
        "scenario": new.scenario,
        "window_days": new.window_days,
        "modalities": summary(new.guesses),
    }


def _print(new: "NewRepo", files: list[str]) -> None:
    from rich.markup import escape

    console = out()
    for one in new.entities:
        console.print(
            f"[bold]entity[/bold] {one.name}: key {one.join_key} ({one.value_type}); {one.why}",
            soft_wrap=True,
        )
    for guess in new.guesses:
        console.print(f"[bold]modality[/bold] {guess.table.name} ({guess.kind}, {guess.table.format})")
        for line in [f"text template {guess.text!r}", *guess.why]:
            console.print(f"    {escape(line)}", soft_wrap=True)
        for doubt in guess.doubts:
            console.print(f"    [yellow]look at:[/yellow] {escape(doubt)}", soft_wrap=True)
    console.print(f"Wrote {len(files)} files in {new.folder}: {', '.join(files)}", soft_wrap=True)
    console.print(
        f"Next: cd {new.folder}, edit profiles.py and scenarios/example.py, then\n"
        f"    qanchor preview {new.scenario} --sample 20\n    feast apply",
        soft_wrap=True,
    )
