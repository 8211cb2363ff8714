"""``qanchor tune``: a scenario's own tokens, learnt from labels; a new version that the scenario may name."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qanchor_plugin.cli.output import err, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, Repo, RepoOption, opened, unknown
from qanchor_plugin.errors import DeclarationError

if TYPE_CHECKING:
    from qanchor_plugin.declare import Profile, Scenario
    from qanchor_plugin.training.tuning import TunedPrompt, TunePlan
    from qanchor_plugin.training.tuning.behaviour import LabelledPrefixes
    from qanchor_plugin.training.tuning.labels import LabelledRows

EXAMPLES = (
    "Examples:  qanchor tune coupon_redeemer --labels redeemed.csv --label-column redeemed  ·  "
    "qanchor tune churn_risk --labels churn.parquet --label-column churned --steps 300 --json"
)
DEFAULT_FOLDER = "soft_prompts"


def tune(
    scenario: Annotated[str, typer.Argument(help="Name of an anchor view in the repo's files.")],
    labels: Annotated[
        Path, typer.Option("--labels", help="Entity rows (.csv or .parquet): join keys, an instant, a label.")
    ],
    label_column: Annotated[str, typer.Option("--label-column", help="The column to learn.")],
    timestamp_column: Annotated[
        str, typer.Option("--timestamp-column", help="The instant up to which behaviour is read.")
    ] = "event_timestamp",
    output: Annotated[
        Path | None,
        typer.Option("--output", help=f"Folder of the versions; by default {DEFAULT_FOLDER}/SCENARIO."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="At most; it may stop before.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Learnt rows of the prompt.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything that is drawn.")] = 0,
    max_rows: Annotated[
        int, typer.Option("--max-rows", min=10, help="With more labels, a sample of so many is read.")
    ] = 20_000,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune a soft prompt on labels; engine and stored prefixes stay as they are.

    Behaviour is read as of each row's own instant. A new version is written and nothing else changes until
    the scenario's file names it; naming an earlier version goes back.
    """
    labels, output = labels.resolve(), None if output is None else output.resolve()
    changes = {"steps": steps, "num_tokens": tokens, "seed": seed}
    with noise_to_stderr(), opened(repo) as here:
        found = tuned_version(
            here,
            scenario,
            labels,
            (label_column, timestamp_column),
            output,
            {name: value for name, value in changes.items() if value is not None},
            max_rows,
        )
    if as_json:
        print_json(found)
    else:
        _print(found)


def tuned_version(
    here: Repo,
    name: str,
    labels: Path,
    columns: tuple[str, str],
    output: Path | None,
    changes: dict[str, Any],
    max_rows: int,
) -> dict[str, Any]:
    """A new version stands in the output folder; what was tuned on what, as JSON-like values.

    Args:
        here: the repo, in whose folder the process stands.
        name: the scenario's.
        labels: the file.
        columns: of label and instant.
        output: the folder of versions, or None.
        changes: to the plan's defaults.
        max_rows: labels read at most.

    Raises:
        QAnchorError: an unknown scenario, labels, a lake or an engine that cannot be used.
    """
    from qanchor_plugin.cli.repo_files import declared_in_files
    from qanchor_plugin.extras import require

    declared = declared_in_files(here)
    if name not in declared.scenarios:
        raise DeclarationError(unknown("scenario", name, list(declared.scenarios)))
    scenario = declared.scenarios[name]
    profile = declared.profile_of(scenario)
    require("torch", purpose="qanchor tune")
    from qanchor_plugin.engine import QueryAnchorEngine
    from qanchor_plugin.training.tuning import TunePlan
    from qanchor_plugin.training.tuning.versions import write_version

    plan = TunePlan(**changes)
    given = _labels(labels, profile, *columns)
    used = given if len(given) <= max_rows else given.sample(max_rows, seed=plan.seed)
    engine = QueryAnchorEngine.load(scenario.engine or here.settings.engine, device=here.settings.device)
    seen, tuned = _tuned(here, scenario, profile, engine, used, plan)
    record = _record(scenario, engine, labels, given, seen, tuned, plan)
    folder = write_version(output or here.path / DEFAULT_FOLDER / name, tuned, record)
    named = folder.relative_to(here.path) if folder.is_relative_to(here.path) else folder
    return {**record, "folder": str(folder), "line": f'soft_prompt="{named.as_posix()}"'}


def _labels(path: Path, profile: "Profile", label_column: str, timestamp_column: str) -> "LabelledRows":
    from qanchor_plugin.cli.user_keys import parse_user, user_bytes
    from qanchor_plugin.training.tuning.labels import read_labels

    def key_of(key: Any) -> bytes:
        typed: dict[str, Any] = {}
        for entity in profile.entities:
            typed |= parse_user(f"{entity.join_key}={_plain(key[entity.join_key])}", [entity])
        return user_bytes(typed, profile.entities)

    return read_labels(
        path,
        join_keys=profile.join_keys,
        key_of=key_of,
        label_column=label_column,
        timestamp_column=timestamp_column,
    )


def _plain(value: Any) -> str:
    """A key's value as text; whole numbers that a table holds as floats stand without the point."""
    if isinstance(value, bytes):
        return value.hex()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _tuned(
    here: Repo, scenario: "Scenario", profile: "Profile", engine: Any, rows: "LabelledRows", plan: "TunePlan"
) -> "tuple[LabelledPrefixes, TunedPrompt]":
    from qanchor_plugin.cli.instants import to_micros
    from qanchor_plugin.prefix_store import LakeTables
    from qanchor_plugin.training.tuning import tune as tune_prompt
    from qanchor_plugin.training.tuning.behaviour import behaviour_at

    now = to_micros(here.settings.now())
    with err().status(f"reading the behaviour of {len(rows)} rows …") as status:
        seen = behaviour_at(
            rows,
            profile,
            engine,
            LakeTables(here.settings.lake),
            now=now,
            progress=lambda done: status.update(f"read {done} of {len(rows)} rows …"),
        )
        tuned = tune_prompt(
            engine,
            scenario.query,
            seen.prefixes,
            seen.rows.cutoffs.tolist(),
            seen.rows.classes,
            plan,
            progress=lambda step, loss: status.update(f"step {step} of {plan.steps}, loss {loss:.3f}"),
        )
    return seen, tuned


def _record(
    scenario: "Scenario",
    engine: Any,
    labels: Path,
    given: "LabelledRows",
    seen: "LabelledPrefixes",
    tuned: "TunedPrompt",
    plan: "TunePlan",
) -> dict[str, Any]:
    held = dict(tuned.held_out_losses)
    return {
        "scenario": scenario.name,
        "query": scenario.query,
        "engine": engine.config.name,
        "engine_digest": engine.digest,
        "labels": labels.name,
        "labels_digest": given.digest,
        "rows": {
            "given": len(given),
            "used": len(seen.rows),
            "unknown_user": seen.num_unknown,
            "no_behaviour": seen.num_empty,
            "by_label": seen.rows.counts(),
        },
        "plan": asdict(plan),
        "seed": plan.seed,
        "best_step": tuned.best_step,
        "held_out": {
            "rows": tuned.num_held_out,
            "loss_at_start": held.get(0),
            "loss": held.get(tuned.best_step),
        },
    }


def _print(found: dict[str, Any]) -> None:
    console, rows, held = out(), found["rows"], found["held_out"]
    counts = ", ".join(f"{name}: {number}" for name, number in rows["by_label"].items())
    console.print(
        f"[bold]{found['scenario']}[/bold] tuned on {rows['used']} of {rows['given']} rows ({counts})",
        soft_wrap=True,
    )
    for name, reason in (
        ("unknown_user", "the lake never saw the user"),
        ("no_behaviour", "the user had no event yet at the row's instant"),
    ):
        if rows[name]:
            console.print(f"[yellow]left out[/yellow] {rows[name]} rows: {reason}", soft_wrap=True)
    if held["rows"]:
        console.print(
            f"loss on {held['rows']} rows held out: {held['loss_at_start']:.3f} at the start, "
            f"{held['loss']:.3f} at step {found['best_step']}",
            soft_wrap=True,
        )
        if found["best_step"] == 0:
            console.print(
                "[yellow]no gain[/yellow] no step beat the start by more than a standard error: the prompt "
                "is the start. More labelled rows may show a gain.",
                soft_wrap=True,
            )
    console.print(f"wrote {found['folder']}", soft_wrap=True)
    console.print("to use it, write in the scenario's file, then run feast apply and feast materialize:")
    console.print(f"    {found['line']}", soft_wrap=True, markup=False)
    console.print("to go back, name an earlier version, or take the line out, and apply again.")
