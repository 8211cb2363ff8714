"""Which rows a tuning's steps do not see, and when these say that a step is better; literal cases."""

import numpy as np
import torch
from numpy.testing import assert_array_equal

from qanchor_plugin.training.tuning.held_out import clearly_lower, split_rows, user_numbers

ONE_EACH = np.arange(3)


def test_users_are_numbered_by_first_appearance():
    assert_array_equal(user_numbers([b"d", b"a", b"d", b"c"]), [0, 1, 0, 2])


def test_users_of_one_row_are_held_out_by_class():
    seen, held = split_rows(np.array([0] * 20 + [1] * 10), np.arange(30), 0.1, seed=0)
    assert ((held < 20).sum(), (held >= 20).sum()) == (2, 1)
    assert sorted([*seen, *held]) == list(range(30))


def test_all_instants_of_a_user_stand_on_one_side():
    """Users 0 to 9 at three instants each; 0 to 3 have the rarer class once, so they are its users."""
    users = np.arange(30) % 10
    classes = np.isin(np.arange(30), [0, 1, 2, 3]).astype(np.int64)
    seen, held = split_rows(classes, users, 0.5, seed=0)
    assert not set(users[seen]) & set(users[held])
    assert sorted([*seen, *held]) == list(range(30))
    assert (users[held] < 4).sum() == 3 * 2
    assert (users[held] >= 4).sum() == 3 * 3


def test_nobody_is_held_out_of_a_share_of_nothing():
    seen, held = split_rows(np.array([0, 1, 0]), ONE_EACH, 0.0, seed=0)
    assert (seen.tolist(), held.tolist()) == ([0, 1, 2], [])


def test_lower_by_more_than_a_standard_error():
    """Falls of 1, 0 and 2: mean 1, standard deviation 1, standard error 1 / sqrt(3) = .577."""
    start = torch.tensor([3.0, 3.0, 3.0])
    assert clearly_lower(torch.tensor([2.0, 3.0, 1.0]), start, ONE_EACH)
    # 1, -1 and 2: mean .667, standard deviation 1.528, standard error .882.
    assert not clearly_lower(torch.tensor([2.0, 4.0, 1.0]), start, ONE_EACH)
    assert not clearly_lower(torch.tensor([1.0]), start[:1], ONE_EACH[:1])  # one has no standard error
    assert not clearly_lower(torch.tensor([]), torch.tensor([]), ONE_EACH[:0])


def test_many_instants_of_one_user_are_one_witness():
    """Falls of 3, 3, 3 and, of another user, -1: by rows 2 with an error of 1, by users 1 with one of 2."""
    start, after = torch.full((4,), 5.0), torch.tensor([2.0, 2.0, 2.0, 6.0])
    assert clearly_lower(after, start, np.arange(4))
    assert not clearly_lower(after, start, np.array([0, 0, 0, 1]))
