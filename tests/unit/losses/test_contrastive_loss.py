"""Contrastive loss against numbers worked out by hand."""

import math

import pytest
import torch

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.losses import contrastive_loss, negatives_kept, retrieval_accuracy

# u0=(1,0) u1=(0,1), v0=(0.6,0.8) v1=(0,1):
# uv = [[.6, 0], [.8, 1]]  uu = [[1, 0], [0, 1]]  vv = [[1, .8], [.8, 1]]  vu = [[.6, .8], [0, 1]]
USER = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
ANSWER = torch.tensor([[0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)


def e(x: float) -> float:
    return math.exp(x / 0.5)


def test_paper_equation_by_hand():
    z0 = e(0.6) + e(0.0) + e(0.0) + e(0.8)
    z1 = e(1.0) + e(0.8) + e(0.0) + e(0.8)
    expected = (-math.log(e(0.6) / z0) - math.log(e(1.0) / z1)) / 2
    got = contrastive_loss(USER, ANSWER, temperature=0.5, margin=0.5)
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_paper_mask_removes_all_three_terms_of_a_pair():
    # margin -.3: bounds .3 and .7; row 1: uv .8 > .7 masks j=0 whole; row 0: uv 0, uu 0 stay
    z0 = e(0.6) + e(0.0) + e(0.0) + e(0.8)
    expected = -math.log(e(0.6) / z0) / 2  # row 1 has no negative left: its loss is 0
    got = contrastive_loss(USER, ANSWER, temperature=0.5, margin=-0.3)
    assert got.item() == pytest.approx(expected, abs=1e-12)
    kept = negatives_kept(USER, ANSWER, margin=-0.3)
    assert kept.tolist() == [[[False, True], [False, False]]] * 3


def test_paper_mask_by_user_similarity_alone():
    user = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    answer = torch.tensor([[0.6, 0.8], [0.6, -0.8]], dtype=torch.float64)
    # uu = 1 > .6 + .1 although uv = .6 is not above it
    assert not negatives_kept(user, answer, margin=0.1).any()
    assert contrastive_loss(user, answer, margin=0.1).item() == 0.0


def test_code_variant_masks_each_kind_by_itself():
    # bounds .6+.1 and 1+.1; row 0: uv 0, uu 0 stay, vu = v0.u1 = .8 > .7 leaves; row 1: vu = v1.u0 = 0
    z0 = e(0.6) + e(0.0) + e(0.0)
    z1 = e(1.0) + e(0.8) + e(0.0) + e(0.0)
    expected = (-math.log(e(0.6) / z0) - math.log(e(1.0) / z1)) / 2
    got = contrastive_loss(USER, ANSWER, temperature=0.5, margin=0.1, variant="code")
    assert got.item() == pytest.approx(expected, abs=1e-12)
    kept = negatives_kept(USER, ANSWER, margin=0.1, variant="code")
    assert kept[2].tolist() == [[False, False], [True, False]]
    assert kept[0].tolist() == [[False, True], [True, False]]


def test_no_margin_keeps_every_pair():
    kept = negatives_kept(USER, ANSWER, margin=None)
    assert kept.sum().item() == 3 * 2
    huge = contrastive_loss(USER, ANSWER, margin=10.0)
    assert contrastive_loss(USER, ANSWER, margin=None).item() == pytest.approx(huge.item(), abs=1e-12)


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_gradients(variant, margin):
    torch.manual_seed(0)
    user = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    answer = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda u, v: contrastive_loss(u, v, temperature=0.2, margin=margin, variant=variant), (user, answer)
    )


def test_gathered_halves_average_to_the_whole():
    torch.manual_seed(1)
    user, answer = torch.randn(6, 4), torch.randn(6, 4)
    whole = contrastive_loss(user, answer, margin=0.1)
    halves = [
        contrastive_loss(
            user[at : at + 3],
            answer[at : at + 3],
            margin=0.1,
            gathered_user=user,
            gathered_answer=answer,
            row_offset=at,
        )
        for at in (0, 3)
    ]
    assert torch.stack(halves).mean().item() == pytest.approx(whole.item(), abs=1e-6)


def test_excluded_pairs_are_no_negatives():
    excluded = torch.tensor([[False, True], [False, False]])
    z1 = e(1.0) + e(0.8) + e(0.0) + e(0.8)
    got = contrastive_loss(USER, ANSWER, temperature=0.5, margin=None, excluded=excluded)
    assert got.item() == pytest.approx(-math.log(e(1.0) / z1) / 2, abs=1e-12)


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_temperatures_stay_finite(temperature, dtype):
    torch.manual_seed(2)
    user = torch.randn(8, 5, dtype=dtype, requires_grad=True)
    answer = torch.randn(8, 5, dtype=dtype, requires_grad=True)
    loss = contrastive_loss(user, answer, temperature=temperature)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(user.grad).all()
    if temperature == 1e4:  # all similarities weigh the same: log of 1 + the negatives kept
        kept = negatives_kept(user, answer).sum(dim=(0, 2)).double()
        assert loss.item() == pytest.approx((1 + kept).log().mean().item(), abs=1e-3)


def test_one_pair_alone_costs_nothing():
    assert contrastive_loss(USER[:1], ANSWER[:1]).item() == 0.0


def test_retrieval_accuracy_by_hand():
    assert retrieval_accuracy(USER, ANSWER) == 1.0
    assert retrieval_accuracy(USER, ANSWER.flip(0)) == 0.0
    assert retrieval_accuracy(USER, ANSWER[:1].expand(2, 2)) == 0.0  # a tie is a miss


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"answer": torch.ones(3, 2)}, "answer"),
        ({"row_offset": 1}, "offset 1"),
        ({"variant": "other"}, "'other'"),
        ({"excluded": torch.ones(1, 2, dtype=torch.bool)}, "excluded is"),
    ],
)
def test_bad_arguments_are_named(arguments, said):
    given = {"user": USER, "answer": ANSWER, **arguments}
    with pytest.raises(InputDataError, match=said):
        contrastive_loss(given.pop("user"), given.pop("answer"), **given)
