"""Whether the margin filter removes what it should: judged where false negatives were planted."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.extras import require


@dataclass(frozen=True, kw_only=True)
class FilterQuality:
    """How the filter did over all pairs of a batch that are in the sum without it.

    Attributes:
        precision: share of removed pairs that were planted false negatives; NaN when none is removed.
        recall: share of planted false negatives that were removed; NaN when none is planted.
        num_removed, num_planted: ordered pairs (i, j).
    """

    precision: float
    recall: float
    num_removed: int
    num_planted: int


def margin_filter_quality(
    user: npt.NDArray[np.floating],
    answer: npt.NDArray[np.floating],
    same: npt.NDArray[np.integer],
    *,
    margin: float,
) -> FilterQuality:
    """The paper's mask m_ij against who is truly alike.

    Args:
        user, answer: (B, D) embeddings of both towers.
        same: (B,) group of each user; members of one group are false negatives of each other.
        margin: c_margin.

    Raises:
        InputDataError: sizes differ.
    """
    if not len(user) == len(answer) == len(same):
        raise InputDataError(
            f"user, answer and same have {len(user)}, {len(answer)} and {len(same)} rows; give one a user."
        )
    torch = require("torch", purpose="The margin filter's evaluation")
    losses = require("qanchor_plugin.losses", purpose="The margin filter's evaluation")
    kept = losses.negatives_kept(torch.as_tensor(user), torch.as_tensor(answer), margin=margin)[0].numpy()
    own = np.eye(len(same), dtype=bool)
    removed = ~kept & ~own
    planted = (same[:, None] == same[None]) & ~own
    hits = int((removed & planted).sum())
    return FilterQuality(
        precision=hits / removed.sum() if removed.any() else float("nan"),
        recall=hits / planted.sum() if planted.any() else float("nan"),
        num_removed=int(removed.sum()),
        num_planted=int(planted.sum()),
    )
