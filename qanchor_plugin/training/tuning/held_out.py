"""Rows that no step of a tuning sees: whole users of every class, and when they say that a step is better.

A user may be labelled at several instants. Its rows are much alike: were some of them seen and others held
out, these would praise what was learnt by heart.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

Int64 = npt.NDArray[np.int64]


def user_numbers(users: Sequence[Hashable]) -> Int64:
    """(N,) each row's user as a number, by first appearance."""
    number = {user: place for place, user in enumerate(dict.fromkeys(users))}
    return np.array([number[user] for user in users], np.int64)


def split_rows(
    classes: Int64, users: Int64, share: float, *, seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(rows that steps see, rows held out), each ascending; no user stands in both.

    Held out is ``share`` of the users of every class, rounded. A user of several classes counts to the one
    that has the fewest rows.

    Args:
        classes: (N,) of the rows.
        users: (N,) numbers of the rows' users.
    """
    random, rows_of_class = np.random.default_rng(seed), np.bincount(classes)
    class_of: dict[int, int] = {}
    for user, one in zip(users.tolist(), classes.tolist(), strict=True):
        known = class_of.setdefault(user, one)
        if rows_of_class[one] < rows_of_class[known]:
            class_of[user] = one
    held: list[int] = []
    for one in sorted(set(class_of.values())):
        members = [user for user, own in class_of.items() if own == one]
        held += random.permutation(members)[: round(share * len(members))].tolist()
    mask = np.isin(users, held)
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def clearly_lower(losses_M: Tensor, start_M: Tensor, users_M: Int64) -> bool:
    """The rows' losses are below the start's by more than the standard error of the paired difference (the
    one-standard-error rule: Breiman et al. 1984, §3.4.3), over users; never with fewer than two of them."""
    fall_M = (start_M.double() - losses_M.double()).cpu().numpy()
    _, number = np.unique(users_M, return_inverse=True)
    falls = np.bincount(number, fall_M) / np.bincount(number) if len(fall_M) else fall_M
    return len(falls) > 1 and bool(falls.mean() > falls.std(ddof=1) / len(falls) ** 0.5)
