"""Models side by side on the same tasks, folds and bootstraps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.bootstrap import bootstrap_metrics, bootstrap_weights, standard_error
from qanchor_plugin.evaluation.folds import NUM_FOLDS, REPEATS, Users, fixed_folds
from qanchor_plugin.evaluation.metrics import Float64
from qanchor_plugin.evaluation.probe import Scorer, logistic_probe, out_of_fold_ranks

METRICS = ("auc", "ks")
MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its standard error and the users behind it."""

    value: float
    standard_error: float
    num_users: int

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.standard_error:.4f}, n={self.num_users})"


class Comparison:
    """Scores of models over tasks; every figure comes with a paired bootstrap standard error."""

    def __init__(
        self,
        labels: Mapping[str, npt.NDArray[np.bool_]],
        *,
        users: Users = None,
        seed: int = 0,
        repeats: tuple[int, ...] = REPEATS,
        num_folds: int = NUM_FOLDS,
    ) -> None:
        """Folds and bootstraps are fixed here, once.

        Args:
            labels: by task, (n,) bool, the same rows, users ascending.
            users: (n,) numbers 0 to U - 1 where a user has several rows (instants): folds keep users apart
                and bootstraps draw users. None: a row a user.
            seed: of the bootstraps.
            repeats, num_folds: see :func:`..folds.fixed_folds`.

        Raises:
            InputDataError: no task, different lengths, or a task with too few of a class.
        """
        if len({len(one) for one in labels.values()}) != 1:
            sizes = {task: len(one) for task, one in labels.items()}
            raise InputDataError(f"tasks have {sizes} labels; give one task or more, of the same users.")
        self.labels = {task: np.asarray(one, bool) for task, one in labels.items()}
        self.users = users
        self.folds = {
            task: fixed_folds(one, users=users, repeats=repeats, num_folds=num_folds)
            for task, one in self.labels.items()
        }
        people = np.arange(len(next(iter(self.labels.values())))) if users is None else users
        self.num_users = int(people.max()) + 1
        self._weights = bootstrap_weights(self.num_users, seed=seed)[:, people]
        self._metrics: dict[str, dict[str, Float64]] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """Names in the order they were added."""
        return tuple(self._metrics)

    def add(
        self,
        model: str,
        features: npt.NDArray | Mapping[str, npt.NDArray],
        *,
        scorer: Scorer = logistic_probe,
    ) -> None:
        """Probe one model's features: (n, d) for all tasks, or one array for each task (scenarios)."""
        metrics = {}
        for task, labels in self.labels.items():
            own = features[task] if isinstance(features, Mapping) else features
            ranks = out_of_fold_ranks(own, labels, self.folds[task], scorer=scorer, users=self.users)
            metrics[task] = bootstrap_metrics(labels, ranks, self._weights)
        self._metrics[model] = metrics

    def add_ranks(self, model: str, ranks: Mapping[str, Float64]) -> None:
        """Out-of-fold ranks (R, n) by task that were made elsewhere on ``self.folds`` (tuned models)."""
        self._metrics[model] = {
            task: bootstrap_metrics(labels, ranks[task], self._weights)
            for task, labels in self.labels.items()
        }

    def add_mean(self, model: str, members: Sequence[str]) -> None:
        """The mean of several models' figures (seeds, wordings) as a model of its own.

        Its standard error is that of the mean over the same bootstrapped users; differences stay paired.

        Raises:
            InputDataError: no member, or one that was not added.
        """
        absent = [one for one in members if one not in self._metrics]
        if absent or not members:
            raise InputDataError(
                f"the mean {model!r} is of {list(members)}, and {absent} are not among the models "
                f"{list(self._metrics)}; add those first."
            )
        self._metrics[model] = {
            task: np.mean([self._metrics[one][task] for one in members], axis=0) for task in self.labels
        }

    def estimate(self, model: str, task: str = MEAN, metric: str = "auc") -> Estimate:
        """A model's figure on a task, or on the mean of all tasks."""
        return self._estimated(self._values(model, task, metric))

    def difference(self, model: str, baseline: str, task: str = MEAN, metric: str = "auc") -> Estimate:
        """Model minus baseline; the standard error is of the paired difference."""
        return self._estimated(self._values(model, task, metric) - self._values(baseline, task, metric))

    def _values(self, model: str, task: str, metric: str) -> Float64:
        if model not in self._metrics or metric not in METRICS or task not in (MEAN, *self.labels):
            raise InputDataError(
                f"no figure for model {model!r}, task {task!r}, metric {metric!r}; known are "
                f"{list(self._metrics)}, {[MEAN, *self.labels]} and {list(METRICS)}."
            )
        place = METRICS.index(metric)
        of_task = self._metrics[model]
        tasks = list(self.labels) if task == MEAN else [task]
        return np.mean([of_task[one][place] for one in tasks], axis=0)

    def _estimated(self, values: Float64) -> Estimate:
        return Estimate(
            value=float(values[0]),
            standard_error=float(standard_error(values)),
            num_users=self.num_users,
        )
