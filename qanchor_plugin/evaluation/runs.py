"""Probes of many models, on every core, each remembered: a run that was stopped goes on where it was.

What is remembered are out-of-fold ranks, by the bytes of everything that made them.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qanchor_plugin.evaluation.baselines import Baseline
from qanchor_plugin.evaluation.comparison import Comparison
from qanchor_plugin.evaluation.folds import Fold, Users
from qanchor_plugin.evaluation.metrics import Float64
from qanchor_plugin.evaluation.probe import C_GRID, Scorer, out_of_fold_ranks
from qanchor_plugin.extras import require

Say = Callable[[str], None]

PROBE_VERSION = 1
"""Raise it when the probe's code changes: remembered ranks are then not used again."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class _Job:
    model: str
    task: str
    features: npt.NDArray[np.float64]
    path: Path


class ProbeRuns:
    """Adds models to a comparison, probing only what was not probed before.

    Args:
        comparison: gets the ranks; its labels, users and folds are used.
        folder: where ranks are remembered.
        processes: probes at a time; default: a core each.
        say: gets one line a model.
    """

    def __init__(
        self, comparison: Comparison, folder: Path, *, processes: int | None = None, say: Say = print
    ) -> None:
        self.comparison, self._folder, self._say = comparison, folder, say
        self._processes = processes or len(os.sched_getaffinity(0))
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, models: Mapping[str, Baseline]) -> None:
        """Every model stands in the comparison, under its name.

        Raises:
            InputDataError: a model's features do not fit the labels, or are not finite.
        """
        jobs = {name: list(self._jobs(name, model)) for name, model in models.items()}
        missing = [
            (models[job.model].scorer, job) for of in jobs.values() for job in of if not job.path.exists()
        ]
        left = {name: sum(job.model == name for _, job in missing) for name in models}
        for done in self._probed(missing):
            left[done] -= 1
            if not left[done]:
                self._say(f"probed {done}")
        for name, of in jobs.items():
            self.comparison.add_ranks(name, {job.task: np.load(job.path) for job in of})

    def _jobs(self, name: str, model: Baseline) -> Iterator[_Job]:
        for task, labels in self.comparison.labels.items():
            given = model.features[task] if isinstance(model.features, Mapping) else model.features
            features = np.ascontiguousarray(given, np.float64)
            key = _digest(features, labels, self.comparison.folds[task], model.scorer, self.comparison.users)
            yield _Job(model=name, task=task, features=features, path=self._folder / f"{key}.npy")

    def _probed(self, missing: Sequence[tuple[Scorer, _Job]]) -> Iterator[str]:
        """The name of a job's model, as each job is done."""
        labels, folds, users = self.comparison.labels, self.comparison.folds, self.comparison.users
        if self._processes == 1 or len(missing) < 2:
            for scorer, job in missing:
                _probe(job.path, job.features, labels[job.task], folds[job.task], scorer, users)
                yield job.model
            return
        with (
            _one_thread_each(),
            ProcessPoolExecutor(self._processes, mp_context=get_context("spawn")) as pool,
        ):
            running = {
                pool.submit(
                    _probe, job.path, job.features, labels[job.task], folds[job.task], scorer, users
                ): job.model
                for scorer, job in missing
            }
            for done in as_completed(running):
                done.result()
                yield running[done]


def _probe(
    path: Path,
    features: npt.NDArray[np.float64],
    labels: npt.NDArray[np.bool_],
    folds: Sequence[Sequence[Fold]],
    scorer: Scorer,
    users: Users,
) -> None:
    """The ranks stand in ``path``, whole or not at all."""
    limits = require("threadpoolctl", purpose="Evaluation").threadpool_limits
    with limits(1):
        ranks = out_of_fold_ranks(features, labels, folds, scorer=scorer, users=users)
    half = path.with_suffix(f".{os.getpid()}.part")
    with half.open("wb") as file:
        np.save(file, ranks)
    half.replace(path)


def _digest(
    features: Float64,
    labels: npt.NDArray[np.bool_],
    folds: Sequence[Sequence[Fold]],
    scorer: Scorer,
    users: Users,
) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    name = getattr(scorer, "__qualname__", str(scorer))
    hasher.update(f"{PROBE_VERSION} {name} {C_GRID} {features.shape}".encode())
    hasher.update(features.tobytes())
    hasher.update(np.asarray(labels, bool).tobytes())
    for repeat in folds:
        for _, test in repeat:
            hasher.update(np.asarray(test, np.int64).tobytes() + b";")
    if users is not None:
        hasher.update(users.tobytes())
    return hasher.hexdigest()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Within, a started process uses one thread for its linear algebra."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
