"""The fixed folds: the same for every model, so that differences are paired."""

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.extras import require

NUM_FOLDS = 5
REPEATS = (0, 1, 2)

Fold = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""(training rows, test rows), positions."""


def fixed_folds(
    labels: npt.NDArray[np.bool_], *, repeats: tuple[int, ...] = REPEATS, num_folds: int = NUM_FOLDS
) -> list[list[Fold]]:
    """``num_folds`` folds for each repeat r: StratifiedKFold(shuffle=True, random_state=r).

    Args:
        labels: (n,) bool in ascending household order.

    Raises:
        InputDataError: fewer members of a class than folds.
    """
    labels = np.asarray(labels, bool)
    fewest = int(min(labels.sum(), (~labels).sum()))
    if fewest < num_folds:
        raise InputDataError(
            f"{int(labels.sum())} of {len(labels)} labels are positive; both classes need at least "
            f"{num_folds} users. Widen the label window, or leave the task out."
        )
    selection = require("sklearn.model_selection", purpose="Evaluation")
    blank = np.zeros(len(labels))
    return [
        list(selection.StratifiedKFold(num_folds, shuffle=True, random_state=repeat).split(blank, labels))
        for repeat in repeats
    ]
