"""What the demo found: what scenarios cost, and what a linear probe reads from them."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from qanchor_plugin.backend.local import LocalBackend
from qanchor_plugin.backend.protocol import Ask
from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.evaluation.comparison import MEAN, Comparison
from qanchor_plugin.evaluation.counts import count_features, matrix
from qanchor_plugin.evaluation.journey import Journey, read_journey
from qanchor_plugin.evaluation.report.plots import score_bars
from qanchor_plugin.evaluation.report.tables import Figure
from qanchor_plugin.evaluation.tasks import FINAL_CUT, TaskTable, journey_tasks

COUNTS, ANCHORS = "39 counts", "embeddings"
STRENGTH = 0.01
NUM_TIMED_USERS = 128
REPEATS = 3


def tasks_at_cut(files: Path) -> tuple[Journey, TaskTable]:
    """The data and the seven tasks at 2017-09-01; labels look only at what came after."""
    journey = read_journey(files)
    return journey, journey_tasks(journey, FINAL_CUT)


def probe(
    journey: Journey, table: TaskTable, embeddings: Mapping[str, npt.NDArray[np.float32]]
) -> Comparison:
    """The counts and the embeddings under one linear probe, folds and bootstraps paired."""
    found = Comparison(table.labels)
    found.add(COUNTS, matrix(count_features(journey, FINAL_CUT, table.households)), scorer=plain_probe)
    found.add(ANCHORS, embeddings, scorer=plain_probe)
    return found


def plain_probe(
    train: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_], test: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Scores of ``test`` from a standardised logistic regression of fixed strength: seconds, not
    minutes (``Comparison``'s own probe chooses it by inner folds)."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, solver="newton-cholesky"))
    return model.fit(train, labels).decision_function(test)


def probe_rows(found: Comparison) -> list[list[str]]:
    """A row a task, and their mean: AUC with its standard error, and the paired difference."""
    rows = []
    for task in (*found.labels, MEAN):
        counts, anchors = found.estimate(COUNTS, task), found.estimate(ANCHORS, task)
        gain = found.difference(ANCHORS, COUNTS, task)
        rows.append(
            [
                task,
                "" if task == MEAN else f"{found.labels[task].mean():.1%}",
                f"{counts.value:.3f} ({counts.standard_error:.3f})",
                f"{anchors.value:.3f} ({anchors.standard_error:.3f})",
                f"{gain.value:+.3f} ({gain.standard_error:.3f})",
            ]
        )
    return rows


def draw(found: Comparison, path: Path) -> Path:
    """A picture of the table: a bar a task for the counts and for the embeddings."""
    rows: dict[str, Figure] = {}
    for task in (*found.labels, MEAN):
        for model in (COUNTS, ANCHORS):
            one = found.estimate(model, task)
            rows[f"{task}, {model}"] = Figure(
                value=one.value, standard_error=one.standard_error, num_users=one.num_users
            )
    chosen = [name for name in rows if name.endswith(ANCHORS)]
    return score_bars(path, rows, quantity="AUC of a linear probe", chosen=chosen)


def milliseconds_per_user(
    settings: Settings, declarations: Declarations, users: list[bytes]
) -> tuple[float, float]:
    """(one scenario, each further one), milliseconds a user, best of REPEATS.

    Reads the lake, finds the users' prefixes and runs the engine, in this process, at the store's clock.
    """
    asked = [
        Ask.of(
            scenario,
            declarations.profile_of(scenario),
            scenario_id=declarations.scenario_id(scenario),
            default_engine=settings.engine,
        )
        for scenario in declarations.scenarios.values()
    ]
    backend = LocalBackend(settings)
    cutoff = int(settings.now().timestamp() * 1_000_000)
    backend.embed(users[:2], cutoff, asked)
    seconds: dict[int, float] = {}
    for num_asked in (1, len(asked)):
        taken = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            backend.embed(users, cutoff, asked[:num_asked])
            taken.append(time.perf_counter() - began)
        seconds[num_asked] = min(taken)
    first = seconds[1] / len(users) * 1000
    further = (seconds[len(asked)] - seconds[1]) / (len(asked) - 1) / len(users) * 1000
    return first, further
