"""``qanchor embed``: any question about some users, without registering it."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qanchor_plugin.cli.instants import from_micros, iso, parse_instant, to_micros
from qanchor_plugin.cli.output import err, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, opened, profile_named
from qanchor_plugin.errors import InputDataError

if TYPE_CHECKING:
    import numpy as np

EXAMPLES = (
    'Examples:  qanchor embed --query "Will this household buy beer?" --user household_id=7  ·  '
    'qanchor embed --query "Pets?" --query "Babies?" --user 7 --user 8 --at 2017-09-01 --json  ·  '
    'qanchor embed --query "Pets?" --user shop=1,card=99 --output pets.parquet'
)
OUTPUT_SUFFIXES = (".parquet", ".npy")
SHOWN_NUMBERS = 4


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What was asked and answered.

    Attributes:
        users: readable keys, one a user.
        queries: as asked.
        cutoff: microseconds since 1970 UTC.
        answers: users x queries of ``backend.Answer``; None where the user is not in the lake.
    """

    users: list[dict[str, Any]]
    queries: list[str]
    cutoff: int
    answers: list[list[Any]]

    def vectors(self) -> "np.ndarray":
        """(users, queries, 128) float32; NaN for users that are not in the lake."""
        import numpy as np

        from qanchor_plugin.schemas import EMBEDDING_DIM

        nothing = np.full(EMBEDDING_DIM, np.nan, np.float32)
        return np.array([[nothing if a is None else a.embedding for a in row] for row in self.answers])

    def rows(self) -> list[dict[str, Any]]:
        """One row a user and query; embedding and counts are None for an unknown user."""
        return [
            {
                "user": user,
                "query": query,
                "status": "unknown_user" if answer is None else "computed",
                "num_events": None if answer is None else answer.num_events,
                "as_of": None if answer is None else iso(from_micros(answer.as_of)),
                "cutoff": iso(from_micros(self.cutoff)),
                "embedding_id": None if answer is None else answer.embedding_id,
                "embedding": None if answer is None else answer.embedding.tolist(),
            }
            for user, row in zip(self.users, self.answers, strict=True)
            for query, answer in zip(self.queries, row, strict=True)
        ]


def embed(
    query: Annotated[list[str], typer.Option("--query", help="The question, in plain words; repeatable.")],
    user: Annotated[
        list[str], typer.Option("--user", metavar="KEY=VALUE", help="Whom; repeatable. Composite: a=1,b=2.")
    ],
    profile: Annotated[
        str | None, typer.Option("--profile", help="Which behaviour, if there are several.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="INSTANT", help="Nothing after it is seen.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write vectors: .parquet or .npy.")] = None,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask questions nobody registered; the answers are embeddings of 128 numbers."""
    if output is not None and output.suffix not in OUTPUT_SUFFIXES:
        raise InputDataError(
            f"--output {str(output)!r}: the name must end in one of {list(OUTPUT_SUFFIXES)}."
        )
    target = None if output is None else output.resolve()
    with noise_to_stderr():
        embedded = answer(query, user, profile, at, repo)
        if target is not None:
            write(embedded, target)
    missing = [key for key, row in zip(embedded.users, embedded.answers, strict=True) if row[0] is None]
    for key in missing:
        err().print(f"[yellow]unknown user[/yellow] {key}: not in the lake; no embedding")
    if as_json:
        print_json({"cutoff": iso(from_micros(embedded.cutoff)), "rows": embedded.rows()})
    else:
        _print(embedded, target)
    if len(missing) == len(embedded.users):
        raise typer.Exit(1)


def answer(
    queries: Sequence[str], users: Sequence[str], profile_name: str | None, at: str | None, repo: Path | None
) -> Embedded:
    """The answers of the repo's backend, over its lake: this process, or a pool of workers.

    Raises:
        QAnchorError: no repo, registry, lake or engine, or a user or instant that cannot be read.
    """
    from qanchor_plugin.backend import Ask, backend_of
    from qanchor_plugin.cli.user_keys import parse_user, user_bytes

    with opened(repo) as here:
        profile = profile_named(here.declarations(), profile_name)
        keys = [parse_user(text, profile.entities) for text in users]
        keys = [key for place, key in enumerate(keys) if key not in keys[:place]]
        instant = here.settings.now() if at is None else parse_instant("--at", at)
        asked = [Ask(profile=profile, query=text, engine=here.settings.engine) for text in queries]
        asking = [user_bytes(key, profile.entities) for key in keys]
        with closing(backend_of(here.settings)) as backend:
            found = backend.embed(asking, to_micros(instant), asked)
    return Embedded(users=keys, queries=list(queries), cutoff=to_micros(instant), answers=found)


def write(embedded: Embedded, target: Path) -> None:
    """The vectors stand in ``target``: .npy (users, queries, 128), or .parquet with one row each.

    Raises:
        InputDataError: the file cannot be written.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if target.suffix == ".npy":
            np.save(target, embedded.vectors())
            return
        rows = [{**row["user"], **{k: v for k, v in row.items() if k != "user"}} for row in embedded.rows()]
        table = pa.Table.from_pylist(rows)
        place = table.schema.get_field_index("embedding")
        column = table.column("embedding").cast(pa.list_(pa.float32()))
        pq.write_table(table.set_column(place, "embedding", column), target)
    except OSError as error:
        raise InputDataError(f"--output {str(target)!r} cannot be written: {error}.") from error


def _print(embedded: Embedded, target: Path | None) -> None:
    from rich.table import Table

    console = out()
    table = Table(box=None, pad_edge=False)
    for heading in ("user", "query", "num_events", "as_of", "embedding"):
        table.add_column(heading, overflow="fold")
    for row in embedded.rows():
        numbers = row["embedding"]
        first = "-" if numbers is None else " ".join(f"{x:+.3f}" for x in numbers[:SHOWN_NUMBERS]) + " …"
        user = ", ".join(f"{key}={value}" for key, value in row["user"].items())
        table.add_row(user, row["query"], _text(row["num_events"]), _text(row["as_of"]), first)
    console.print(table)
    console.print(f"cutoff {iso(from_micros(embedded.cutoff))}")
    _print_cosines(embedded)
    if target is not None:
        console.print(f"wrote {target}", soft_wrap=True)


def _print_cosines(embedded: Embedded) -> None:
    import numpy as np

    vectors = embedded.vectors()
    known = vectors[~np.isnan(vectors).any(axis=(1, 2))]
    console = out()
    if len(known) > 1:
        for place, query in enumerate(embedded.queries):
            console.print(f"cosine between users, {query!r}:")
            _print_matrix(known[:, place] @ known[:, place].T)
    if len(known) and len(embedded.queries) > 1:
        console.print("cosine between queries (mean over users):")
        _print_matrix(np.einsum("uqd,upd->qp", known, known) / len(known))


def _print_matrix(matrix: "np.ndarray") -> None:
    for row in matrix:
        out().print("    " + " ".join(f"{value:+.3f}" for value in row))


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
