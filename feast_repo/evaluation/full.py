"""What takes hours: soft prompts inside the folds, the paper's ablations, and scaling. Cut 2017-06-01.

Lengths and steps of soft prompts are tried on two tasks: every one is tuned in five folds for each.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from feast_repo.evaluation.questions import right_queries
from feast_repo.evaluation.study import RIGHT, Study, slug
from feast_repo.evaluation.training import BASE, Trainings, Variant
from feast_repo.evaluation.tuned import Tuning, fold_ranks
from qanchor_plugin.evaluation.report.tables import Model, Table, differences, scores
from qanchor_plugin.training.tuning import TunePlan

ABLATIONS = (
    Variant(name="no user token", engine={"user_token": False}),
    Variant(name="no modality tokens", engine={"modality_tokens": False}),
    Variant(name="neither token", engine={"user_token": False, "modality_tokens": False}),
    Variant(name="no margin", objective={"margin": None}),
    Variant(name="no next-token loss", objective={"next_token_weight": 0.0}),
    Variant(name="no contrastive loss", objective={"contrastive_weight": 0.0}),
    Variant(name="no outcome loss", objective={"outcome_weight": 0.0, "outlook_weight": 0.0}),
)
"""The paper's, and one of our own objective."""

SHARES = (0.1, 0.25, 0.5, 1.0)
STEPS = (40, 80, 160, 320)
"""The third are the base's."""
SWEPT = ("pet", "beer")
PROMPT_LENGTHS = (1, 6, 16)
PROMPT_STEPS = (100, 300, 500)
CUT_NOTE = "chosen and shown on the cut 2017-06-01 only"

Right = Mapping[str, npt.NDArray[np.float32]]
"""(n, 128) by task: the base embeddings for the right queries."""


def add_tuned(
    study: Study, name: str, engine: str, vectors: Right, plan: TunePlan, *, label: str = "tuned"
) -> tuple[str, str]:
    """(tuned, base): models of the first repeat alone, prompts tuned inside its folds."""
    tuned, base = f"{name}, {label}", f"{name}, {RIGHT}, first repeat"
    found = study.found
    found.add_ranks(
        tuned, Tuning(study=study, name=name, engine=engine, plan=plan).ranks(list(study.tasks.labels))
    )
    if base not in found.models:
        same = {
            task: fold_ranks([vectors[task]] * len(folds[0]), study.tasks.labels[task], folds[0])
            for task, folds in found.folds.items()
        }
        found.add_ranks(base, same)
    return tuned, base


def tuned_tables(study: Study, pairs: Sequence[tuple[str, str]], command: str) -> list[Table]:
    """Tuned and base of each engine, and their paired difference."""
    tuned = Model(name="tuned, inside the folds", members=tuple(one for one, _ in pairs), trained=True)
    base = Model(name="base", members=tuple(one for _, one in pairs), trained=True)
    title = f"AUC with soft prompts tuned inside the training folds, first repeat of the folds, {study.date}"
    found = study.found
    gain = {"tuned - base": (tuned, base)}
    return [
        scores(found, [base, tuned], name="quality-tuned", title=title, command=command),
        differences(
            found,
            gain,
            name="quality-tuned-gain",
            title=f"AUC gained by tuning, {study.date}",
            command=command,
        ),
    ]


def ablation_tables(study: Study, trainings: Trainings, seeds: Sequence[int], command: str) -> list[Table]:
    """Every ablation of the pre-training, and what it loses."""
    models = [add_variant(study, trainings, variant, seeds) for variant in (BASE, *ABLATIONS)]
    title = f"AUC of ablated pre-trainings, right queries, {CUT_NOTE}"
    loss = {f"{model.name} - base": (model, models[0]) for model in models[1:]}
    return [
        scores(study.found, models, name="quality-ablations", title=title, command=command),
        differences(
            study.found,
            loss,
            name="quality-ablation-losses",
            title=f"AUC against the base, paired, {CUT_NOTE}",
            command=command,
        ),
    ]


def scaling_tables(study: Study, trainings: Trainings, seeds: Sequence[int], command: str) -> list[Table]:
    """AUC over the share of users that pairs come from, and over optimisation steps."""
    shares = [Variant(name=f"{share:.0%} of users", share=share) for share in SHARES if share < 1]
    by_share = [add_variant(study, trainings, one, seeds) for one in (*shares, BASE)]
    own = trainings.plan(seeds[0], BASE).train.steps
    by_step = [
        add_variant(
            study,
            trainings,
            BASE if steps == own else Variant(name=f"{steps} steps", train={"steps": steps}),
            seeds,
        )
        for steps in STEPS
    ]
    return [
        scores(study.found, models, name=name, title=f"AUC by {of}, {CUT_NOTE}", command=command)
        for models, name, of in (
            (by_share, "quality-data-scaling", "share of users (100%: base)"),
            (by_step, "quality-step-scaling", f"steps of pre-training (base: {own})"),
        )
    ]


def prompt_tables(
    study: Study, name: str, engine: str, vectors: Right, untrained: tuple[str, Right], command: str
) -> list[Table]:
    """AUC by length of the prompt and by tuning steps, and of a prompt over the untrained engine.

    Args:
        study: of the tasks ``SWEPT``.
        name, engine, vectors: of the trained engine.
        untrained: folder and vectors of the untrained one.
        command: what regenerates the tables.
    """
    tables = []
    for kind, changes in (
        ("tokens", [(n, TunePlan(num_tokens=n)) for n in PROMPT_LENGTHS]),
        ("steps", [(n, TunePlan(steps=n, held_out=0.0)) for n in PROMPT_STEPS]),
    ):
        rows = [
            Model(
                name=f"{n} {kind}",
                members=(add_tuned(study, name, engine, vectors, plan, label=f"tuned, {n} {kind}")[0],),
                trained=True,
            )
            for n, plan in changes
        ]
        title = f"AUC tuned inside the folds, by {kind} of the soft prompt, {CUT_NOTE}"
        tables.append(scores(study.found, rows, name=f"quality-prompt-{kind}", title=title, command=command))
    folder, own = untrained
    alone, base = add_tuned(study, "untrained", folder, own, TunePlan())
    rows = [Model.one(base), Model.one(alone)]
    title = f"AUC tuned without pre-training, {CUT_NOTE}"
    return [*tables, scores(study.found, rows, name="quality-tuned-alone", title=title, command=command)]


def add_variant(study: Study, trainings: Trainings, variant: Variant, seeds: Sequence[int]) -> Model:
    """The variant's seeds are in the study; the model is their mean."""
    names = []
    for seed in seeds:
        name = f"trained, seed {seed}" if variant == BASE else f"{slug(variant.name)}, seed {seed}"
        member = f"{name}, {RIGHT}"
        if member not in study.found.models:
            study.add_engine(name, str(trainings.train_engine(seed, variant)), right_only=True)
        names.append(member)
    return Model(name=variant.name, members=tuple(names), trained=True)


def right_of(vectors: Mapping[str, npt.NDArray[np.float32]]) -> Right:
    """The right queries' vectors out of all that was asked."""
    return {task: vectors[task] for task in right_queries()}
