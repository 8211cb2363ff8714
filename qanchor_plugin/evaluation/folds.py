"""The fixed folds: the same for every model, so that differences are paired."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.extras import require

NUM_FOLDS = 5
REPEATS = (0, 1, 2)

Users = npt.NDArray[np.int64] | None
Fold = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""(training rows, test rows), positions."""


def fixed_folds(
    labels: npt.NDArray[np.bool_],
    *,
    users: Users = None,
    repeats: tuple[int, ...] = REPEATS,
    num_folds: int = NUM_FOLDS,
) -> list[list[Fold]]:
    """``num_folds`` folds for each repeat r: :func:`splits` with seed r.

    Args:
        labels: (n,) bool in ascending household order.
        users: see :func:`splits`.

    Raises:
        InputDataError: fewer users of a class than folds.
    """
    labels = np.asarray(labels, bool)
    people = np.arange(len(labels)) if users is None else users
    fewest = min(len(np.unique(people[one])) for one in (labels, ~labels))
    if fewest < num_folds:
        raise InputDataError(
            f"{int(labels.sum())} of {len(labels)} labels are positive; both classes need at least "
            f"{num_folds} users. Widen the label window, or leave the task out."
        )
    return [list(splits(labels, num_folds, seed=repeat, users=users)) for repeat in repeats]


def splits(
    labels: npt.NDArray[np.bool_], num_folds: int, *, seed: int, users: Users = None
) -> Iterator[Fold]:
    """Folds with the classes' shares: StratifiedKFold, shuffled by ``seed``.

    Args:
        labels: (n,) bool.
        users: (n,) the rows' users by number where one has several rows: these are in one fold then
            (StratifiedGroupKFold), for a model that knows a user is no test of the others.
    """
    selection, blank = require("sklearn.model_selection", purpose="Evaluation"), np.zeros(len(labels))
    if users is None:
        yield from selection.StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(blank, labels)
        return
    grouped = selection.StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    yield from grouped.split(blank, labels, users)
