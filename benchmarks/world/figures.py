"""Figures with their errors: one comparison of many engines over the ten tasks, made into rows.

Shape letters: R repeats of the folds, S seeds.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.results import Row, as_run, machine
from benchmarks.world.data import Judged
from qanchor_plugin.evaluation.comparison import Comparison, Estimate
from qanchor_plugin.evaluation.folds import Fold
from qanchor_plugin.evaluation.probe import Scorer, logistic_probe, out_of_fold_ranks

Features = npt.NDArray | Mapping[str, npt.NDArray]
COMMAND = "python -m benchmarks.world"


class WorldFigures:
    """Models over the world's tasks, paired by user; a model of several seeds is one model.

    Args:
        people: whom and what is judged.
        num_repeats: repeats of the folds that are scored (three are fixed for everybody).
        scorer: the probe.
    """

    def __init__(self, people: Judged, *, num_repeats: int = 1, scorer: Scorer = logistic_probe) -> None:
        self.people, self._scorer = people, scorer
        self.comparison = Comparison(people.labels)
        self._num_repeats = num_repeats
        self.num_seeds: dict[str, int] = {}

    def add(self, model: str, seeds: Sequence[Features]) -> None:
        """Probe one model's features, (n, d) for all tasks or one a task, of every seed; a figure is the
        mean over seeds, its error is of the users."""
        ranks = {
            task: np.concatenate(
                [self._ranks(one[task] if isinstance(one, Mapping) else one, task) for one in seeds]
            )
            for task in self.people.labels
        }
        self.add_ranks(model, ranks)

    def add_ranks(self, model: str, ranks: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """A model by its ranks, (seeds, n) a task."""
        self.comparison.add_ranks(model, ranks)
        self.num_seeds[model] = len(next(iter(ranks.values())))

    def add_truth(self, model: str = "truth") -> None:
        """The true propensities: what nobody can pass, learnt or not."""
        self.add_ranks(model, {task: one[None] for task, one in self.people.truth.items()})

    def row(self, table: str, model: str, *, against: str | None = None, name: str | None = None) -> Row:
        """A model's mean AUC of the ten tasks, beside a baseline's where one is named."""
        estimate = self.comparison.estimate(model)
        base = None if against is None else self.comparison.estimate(against).value
        return self._row(table, name or model, estimate, model, baseline=base, baseline_name=against)

    def difference(self, table: str, model: str, against: str, *, wanted: float | None = None) -> Row:
        """The paired difference of mean AUC; ``wanted`` is the bar."""
        estimate = self.comparison.difference(model, against)
        bar = None if wanted is None else "wanted"
        return self._row(
            table,
            f"{model} minus {against}",
            estimate,
            model,
            baseline=wanted,
            baseline_name=bar,
            signed=True,
        )

    def by_task(self, table: str, models: Sequence[str]) -> list[Row]:
        """Every model's AUC on every task: a row a task, a column a model."""
        return [
            self._row(
                table, task, self.comparison.estimate(model, task), model, column=model, title="AUC by task"
            )
            for task in self.people.labels
            for model in models
        ]

    def _row(self, table: str, name: str, estimate: Estimate, model: str, **more: object) -> Row:
        return Row(
            table=table,
            row=name,
            value=estimate.value,
            unit="AUC",
            n=estimate.num_users,
            seeds=self.num_seeds[model],
            standard_error=estimate.standard_error,
            command=as_run(COMMAND),
            machine=machine(),
            **more,  # type: ignore[arg-type]
        )

    def _ranks(self, features: npt.NDArray, task: str) -> npt.NDArray[np.float64]:
        folds: list[list[Fold]] = self.comparison.folds[task][: self._num_repeats]
        return out_of_fold_ranks(features, self.people.labels[task], folds, scorer=self._scorer)


def seconds_row(table: str, name: str, seconds: float) -> Row:
    """How long a part took."""
    return Row(
        table=table, row=name, value=round(seconds, 1), unit="s", command=as_run(COMMAND), machine=machine()
    )
