"""The evaluation's pictures, for README, docs and the report."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feast_repo.evaluation.full import SHARES, STEPS
from feast_repo.evaluation.questions import right_queries
from feast_repo.evaluation.study import Study
from feast_repo.evaluation.tuned import Tuning
from qanchor_plugin.engine import SoftPrompt
from qanchor_plugin.evaluation.attention import modality_attention
from qanchor_plugin.evaluation.comparison import MEAN
from qanchor_plugin.evaluation.report.page import Picture
from qanchor_plugin.evaluation.report.plots import (
    Curve,
    Panel,
    attention_shift,
    embedding_maps,
    scaling_curves,
    score_bars,
)
from qanchor_plugin.evaluation.report.tables import Figure, Table

MAPPED_TASKS = ("pet", "redeem")
NUM_WATCHED = 300
"""Households over whom attention is averaged."""

Vectors = Mapping[str, npt.NDArray[np.float32]]


def bars_picture(table: Table, folder: Path) -> Picture:
    """Mean AUC of every row that has one."""
    place = table.columns.index(MEAN)
    rows = {name: cell for name, cells in table.rows if isinstance(cell := cells[place], Figure)}
    chosen = [name for name in rows if name.startswith(("trained", "shipped"))]
    path = score_bars(folder / "auc.png", rows, quantity="mean AUC of seven tasks", chosen=chosen)
    return Picture(path=path, caption=f"{table.title}: mean of seven tasks")


def map_pictures(study: Study, panels: Mapping[str, Vectors], folder: Path) -> list[Picture]:
    """PCA and t-SNE of two tasks' embeddings, a panel for each of ``panels`` (before, after)."""
    made = []
    for task in MAPPED_TASKS:
        labels = study.tasks.labels[task]
        shown = [
            Panel(title=f"{task}: {name}", vectors=one[task], labels=labels) for name, one in panels.items()
        ]
        for method in ("pca", "tsne"):
            path = embedding_maps(folder / f"{method}-{task}.png", shown, method=method, positive=task)
            made.append(Picture(path=path, caption=f"{method} of {task!r}, households at {study.date}"))
    return made


def tuned_vectors(tuning: Tuning) -> Vectors:
    """By mapped task, (n, 128): each household under the prompt of the fold that did NOT see it."""
    vectors = tuning.vectors(list(MAPPED_TASKS))
    out = {}
    for task in MAPPED_TASKS:
        folds = tuning.study.found.folds[task][0]
        out[task] = np.empty_like(vectors[f"{task}_f0"])
        for number, (_, test) in enumerate(folds):
            out[task][test] = vectors[f"{task}_f{number}"][test]
    return out


def attention_pictures(tuning: Tuning, folder: Path) -> list[Picture]:
    """Where ``<USER_EMB>`` looks before and after tuning, for two tasks."""
    engine, users = tuning.loaded, tuning.users
    slices, prefixes = users.slices[:NUM_WATCHED], users.prefixes[:NUM_WATCHED]
    made = []
    for task in MAPPED_TASKS:
        rows = tuning.study.found.folds[task][0][0][0]
        prompt = SoftPrompt.load(tuning.prompt(task, rows))
        query = right_queries()[task]
        shares = {
            name: modality_attention(engine, slices, prefixes, engine.prepare_query(query, one))
            for name, one in (("before tuning", None), ("after tuning", prompt))
        }
        title = f"{task}: attention by source, {len(slices)} households"
        path = attention_shift(folder / f"attention-{task}.png", shares, title=title)
        made.append(Picture(path=path, caption=f"{title}, last block, mean over heads"))
    return made


def scaling_pictures(tables: Mapping[str, Table], folder: Path) -> list[Picture]:
    """Data and step scaling, of those tables that were made."""
    made = []
    for name, amounts, amount in (
        ("quality-data-scaling", [100 * share for share in SHARES], "share of users that pairs come from, %"),
        ("quality-step-scaling", list(STEPS), "optimisation steps of pre-training"),
    ):
        if name not in tables:
            continue
        table = tables[name]
        figures = [cells[-1] for _, cells in table.rows if isinstance(cells[-1], Figure)]
        curve = Curve(name="right queries", amounts=amounts, figures=figures)
        path = folder / f"{name.removeprefix('quality-')}.png"
        path = scaling_curves(path, [curve], amount=amount, quantity="mean AUC of seven tasks")
        made.append(Picture(path=path, caption=table.title))
    return made
