"""Figures in rows and columns, each with its n, its seeds and its standard error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.comparison import MEAN, Comparison, Estimate


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        standard_error: of ``value``, over bootstrapped users.
        num_users: behind it.
        num_seeds: trainings whose mean it is; 0 where nothing was trained.
        spread: standard deviation over the seeds; None below two.
    """

    value: float
    standard_error: float
    num_users: int
    num_seeds: int = 0
    spread: float | None = None

    def text(self, *, signed: bool = False) -> str:
        """``0.7731 ± 0.0071 (seeds ± 0.0004)``."""
        shown = f"{self.value:+.4f}" if signed else f"{self.value:.4f}"
        over = "" if self.spread is None else f" (seeds ± {self.spread:.4f})"
        return f"{shown} ± {self.standard_error:.4f}{over}"


Cell = Figure | str
"""A figure, or why there is none."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A grid of figures.

    Attributes:
        name: slug under which results and pages know it.
        title: what is measured, of whom, at which cut.
        columns: names of the figures.
        rows: name of each row and its cells, one a column.
        command: what regenerates it.
        signed: the figures are differences.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    command: str
    signed: bool = False

    def __post_init__(self) -> None:
        uneven = [name for name, cells in self.rows if len(cells) != len(self.columns)]
        if uneven:
            raise InputDataError(
                f"table {self.name!r}: rows {uneven} do not have {len(self.columns)} cells; "
                f"the columns are {list(self.columns)}."
            )


@dataclass(frozen=True, kw_only=True)
class Model:
    """A row of a table.

    Attributes:
        name: as shown.
        members: the comparison's models whose mean it is: its seeds; one alone for a model as such.
        trained: whether the members are trainings.
    """

    name: str
    members: tuple[str, ...]
    trained: bool = False

    @classmethod
    def one(cls, name: str) -> "Model":
        """A model of the comparison under its own name."""
        return cls(name=name, members=(name,))


def scores(
    found: Comparison, models: Sequence[Model], *, name: str, title: str, command: str, metric: str = "auc"
) -> Table:
    """Every model's figure on every task, and on their mean in the last column."""
    return Table(
        name=name,
        title=title,
        columns=(*found.labels, MEAN),
        rows=tuple(
            (model.name, tuple(score(found, model, task, metric) for task in (*found.labels, MEAN)))
            for model in models
        ),
        command=command,
    )


def differences(
    found: Comparison,
    pairs: Mapping[str, tuple[Model, Model]],
    *,
    name: str,
    title: str,
    command: str,
    metric: str = "auc",
) -> Table:
    """First minus second of every pair, on every task and on their mean; standard errors are paired."""
    return Table(
        name=name,
        title=title,
        columns=(*found.labels, MEAN),
        rows=tuple(
            (row, tuple(difference(found, *pair, task, metric) for task in (*found.labels, MEAN)))
            for row, pair in pairs.items()
        ),
        command=command,
        signed=True,
    )


def score(found: Comparison, model: Model, task: str = MEAN, metric: str = "auc") -> Figure:
    """A model's figure: the mean over its members, and their spread."""
    each = [found.estimate(member, task, metric).value for member in model.members]
    return _figure(found.estimate(_joined(found, model), task, metric), each, model.trained)


def difference(
    found: Comparison, model: Model, against: Model, task: str = MEAN, metric: str = "auc"
) -> Figure:
    """Model minus ``against``; where both have as many members, the spread is of the members' differences."""
    if len(model.members) == len(against.members):
        seconds: Sequence[str] = against.members
    else:
        seconds = [_joined(found, against)] * len(model.members)
    each = [
        found.difference(first, second, task, metric).value
        for first, second in zip(model.members, seconds, strict=True)
    ]
    whole = found.difference(_joined(found, model), _joined(found, against), task, metric)
    return _figure(whole, each, model.trained or against.trained)


def _joined(found: Comparison, model: Model) -> str:
    """The comparison's name of the model; the mean of several members is added once."""
    if len(model.members) == 1:
        return model.members[0]
    name = f"mean of {', '.join(model.members)}"
    if name not in found.models:
        found.add_mean(name, model.members)
    return name


def _figure(whole: Estimate, each: Sequence[float], trained: bool) -> Figure:
    several = trained and len(each) > 1
    return Figure(
        value=whole.value,
        standard_error=whole.standard_error,
        num_users=whole.num_users,
        num_seeds=len(each) if trained else 0,
        spread=float(np.std(each, ddof=1)) if several else None,
    )
