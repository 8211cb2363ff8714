"""``qanchor train``: an engine learns from a lake's pairs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qanchor_plugin.cli.instants import from_micros, human_duration, iso, parse_instant, to_micros
from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, opened, profile_named

if TYPE_CHECKING:
    from qanchor_plugin.training.pretrain import PretrainReport

EXAMPLES = (
    "Examples:  qanchor train --profile shopper --output engines/shopper  ·  "
    "qanchor train --output engines/shopper --resume  ·  "
    "qanchor train --output engines/brands --space behaviour  ·  "
    "qanchor train --output engines/long --steps 2000 --lr 5e-4 --seed 1 --until 2017-09-01  ·  "
    "accelerate launch -m qanchor_plugin.cli.main train --engine qwen2.5-0.5b --output engines/qwen"
)


def train(
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="For the engine, its checkpoints and its logs.")
    ],
    profile: Annotated[
        str | None, typer.Option("--profile", help="Which behaviour, if there are several.")
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="What to begin with: a preset or a folder.")
    ] = "demo",
    steps: Annotated[int | None, typer.Option("--steps", help="Of the optimiser, at most.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate at its highest.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="INSTANT", help="Refuse pairs that tell of anything from then on."),
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            "--space",
            help="What demo's heads find alike: engine (as they do now), or first fitted on your data: texts "
            "(that read alike) or behaviour (of the same users, whatever the names).",
        ),
    ] = "engine",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in --output.")
    ] = False,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train an engine on the pairs that qanchor pairs made of your own behaviour; no label is needed."""
    target = output.resolve()
    with noise_to_stderr():
        report = run(repo, profile, target, engine, steps, lr, seed, until, space, resume)
    if as_json:
        print_json(report.to_dict())
        return
    _print(report, target)


def run(
    repo: Path | None,
    profile_name: str | None,
    target: Path,
    engine: str,
    steps: int | None,
    lr: float | None,
    seed: int,
    until: str | None,
    space: str,
    resume: bool,
) -> "PretrainReport":
    """``target`` holds a trained engine.

    Raises:
        QAnchorError: no repo, registry, lake, pairs or engine, or training that had to stop.
    """
    from qanchor_plugin.extras import require

    for package in ("torch", "accelerate", "tensorboard", "matplotlib"):
        require(package, purpose="qanchor train")
    from qanchor_plugin.training.batches import BatchPlan
    from qanchor_plugin.training.pretrain import PretrainPlan, pretrain
    from qanchor_plugin.training.trainer import TrainPlan
    from qanchor_plugin.training.trainer.watch import default_watcher

    given: dict[str, Any] = {"steps": steps, "learning_rate": lr}
    chosen = {name: value for name, value in given.items() if value is not None}
    with opened(repo) as here:
        declared = profile_named(here.declarations(), profile_name)
        plan = PretrainPlan(
            engine=engine,
            train=TrainPlan(seed=seed, **chosen),
            batches=BatchPlan(seed=seed),
            until=None if until is None else to_micros(parse_instant("--until", until)),
            space=space,
            device=here.settings.device,
        )
        return pretrain(here.settings, declared, plan, target, progress=default_watcher(), resume=resume)


def _print(report: "PretrainReport", target: Path) -> None:
    told, console = report.train, out()
    early = ", stopped early" if told.stopped_early else ""
    console.print(f"trained: {told.steps} steps in {human_duration(told.seconds)}{early}")
    if told.losses:
        console.print(f"    loss          {told.losses[0][1]:.4f} -> {told.losses[-1][1]:.4f}")
    if told.held_out:
        best = dict(told.held_out).get(told.kept_step, told.held_out[-1][1])
        console.print(
            f"    held out      {told.held_out[0][1]:.4f} -> {best:.4f} (weights of step {told.kept_step} "
            "are kept)"
        )
    else:
        console.print("    held out      no held-out user has pairs: nothing says when to stop")
    console.print(f"    pairs         {report.num_pairs[0]:,} trained on, {report.num_pairs[1]:,} held out")
    if report.fitted_space is not None:
        console.print(f"    space         {report.fitted_space}")
    if report.num_small_batches:
        console.print(
            f"    [yellow]small[/yellow]         {report.num_small_batches} batches had too few users"
        )
    _print_sanity(report)
    if report.known_until is not None:
        console.print(f"    seen          nothing from {iso(from_micros(report.known_until))} on")
    console.print(f"    engine        {report.engine_folder}  ({report.digest_after})", soft_wrap=True)
    console.print(f"    curves        {target / 'loss.png'}, tensorboard --logdir {target}", soft_wrap=True)
    console.print(
        f"next: set 'engine: {report.engine_folder}' in feature_store.yaml, then feast apply and feast "
        "materialize",
        soft_wrap=True,
        markup=False,
    )


def _print_sanity(report: "PretrainReport") -> None:
    """What held-out users show without any label, and what looks wrong."""
    found, console = report.sanity, out()
    if found is None:
        return
    console.print(
        f"    outcomes      {found.outcome_accuracy:.1%} told right; each question's usual answer: "
        f"{found.outcome_baseline:.1%}"
    )
    console.print(f"    own future    {found.future_accuracy:.1%} found; by chance {found.future_chance:.1%}")
    console.print(
        f"    embeddings    effective rank {found.effective_rank:.1f}, cosine between users "
        f"{found.mean_cosine:.2f}, variance between questions {found.question_share:.0%}"
    )
    for warning in found.warnings:
        console.print(f"    [yellow]look[/yellow]          {warning}", soft_wrap=True)
