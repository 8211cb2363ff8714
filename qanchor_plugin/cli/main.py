"""``qanchor``: the command line over a feature repo and its lake."""

import sys
import traceback
from collections.abc import Sequence

import typer

from qanchor_plugin.cli import (
    backup,
    calibrate,
    capacity,
    doctor,
    embed,
    evaluate,
    forget,
    init,
    maintain,
    migrate,
    pairs,
    preview,
    purge,
    refresh,
    scenarios,
    status,
    train,
    training_set,
    tune,
    worker,
)
from qanchor_plugin.cli.output import err
from qanchor_plugin.errors import QAnchorError

app = typer.Typer(
    name="qanchor",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="User embeddings by anchor query, as Feast feature views.\n\n"
    "Declare scenarios in a feature repo, look at them with [bold]preview[/bold], register them with "
    "[bold]feast apply[/bold] and fill them with [bold]feast materialize[/bold].",
)


@app.callback()
def options(
    debug: bool = typer.Option(
        False, "--debug", help="Show the traceback of an error (anywhere in the line)."
    ),
) -> None:
    """The options that stand before every command."""


app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.command("init", epilog=init.EXAMPLES)(init.init)
app.command("preview", epilog=preview.EXAMPLES)(preview.preview)
app.command("status", epilog=status.EXAMPLES)(status.status)
app.command("scenarios", epilog=scenarios.EXAMPLES)(scenarios.scenarios)
app.command("embed", epilog=embed.EXAMPLES)(embed.embed)
app.command("refresh", epilog=refresh.EXAMPLES)(refresh.refresh)
app.command("pairs", epilog=pairs.EXAMPLES)(pairs.pairs)
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("tune", epilog=tune.EXAMPLES)(tune.tune)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("worker", epilog=worker.EXAMPLES)(worker.worker)
app.command("forget", epilog=forget.EXAMPLES)(forget.forget)
app.command("maintain", epilog=maintain.EXAMPLES)(maintain.maintain)
app.command("migrate", epilog=migrate.EXAMPLES)(migrate.migrate)
app.command("backup", epilog=backup.BACKUP_EXAMPLES)(backup.backup)
app.command("restore", epilog=backup.RESTORE_EXAMPLES)(backup.restore)
app.command("training-set", epilog=training_set.EXAMPLES)(training_set.training_set)
app.command("calibrate", epilog=calibrate.EXAMPLES)(calibrate.calibrate)
app.command("plan", epilog=capacity.EXAMPLES)(capacity.plan)
app.command("purge", epilog=purge.EXAMPLES)(purge.purge)


def main(argv: Sequence[str] | None = None) -> None:
    """The command has run; the process ends with 0 (done), 1 (a problem) or 2 (misuse)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [one for one in arguments if one != "--debug"]
    try:
        app(args=arguments, prog_name="qanchor")
    except QAnchorError as error:
        if debug:
            traceback.print_exc()
        err().print(f"[bold red]error:[/bold red] {_escaped(str(error))}", soft_wrap=True)
        sys.exit(1)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
