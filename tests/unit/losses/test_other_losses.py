"""Next-token, prototype and total loss, by hand; gathering on two real processes."""

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.losses import (
    IGNORED,
    answer_labels,
    contrastive_loss,
    gather_rows,
    next_token_loss,
    prototype_loss,
    total_loss,
)


def test_next_token_loss_shifts_by_one_and_ignores_the_question():
    # only token 2 (class 1) is labelled; it is predicted at position 1
    logits = torch.zeros(1, 3, 2, dtype=torch.float64)
    logits[0, 1] = torch.tensor([0.0, math.log(3)], dtype=torch.float64)
    logits[0, 2] = torch.tensor([100.0, -100.0])  # predicts beyond the end: never counted
    labels = torch.tensor([[IGNORED, IGNORED, 1]])
    assert next_token_loss(logits, labels).item() == pytest.approx(-math.log(3 / 4), abs=1e-12)


def test_next_token_loss_is_a_mean_over_tokens_not_rows():
    logits = torch.zeros(2, 3, 4)
    logits[0, 0, 2] = 50.0
    labels = torch.tensor([[IGNORED, 2, 1], [IGNORED, IGNORED, 3]])
    assert next_token_loss(logits, labels).item() == pytest.approx((0 + 2 * math.log(4)) / 3, abs=1e-6)


def test_next_token_loss_without_labels_is_zero_with_gradient():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    loss = next_token_loss(logits, torch.full((2, 3), IGNORED))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.abs().sum().item() == 0.0


def test_next_token_gradients():
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[IGNORED, 2, 1], [IGNORED, IGNORED, 3]])
    assert torch.autograd.gradcheck(lambda x: next_token_loss(x, labels), (logits,))


def test_answer_labels_by_hand():
    tokens = torch.tensor([[5, 6, 7, 0], [5, 6, 7, 8]])
    got = answer_labels(tokens, answer_start=torch.tensor([1, 3]), num_tokens=torch.tensor([3, 4]))
    assert got.tolist() == [[IGNORED, 6, 7, IGNORED], [IGNORED, IGNORED, IGNORED, 8]]


def test_prototype_loss_by_hand():
    user = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    # row 0, class 0: logits (1, 0)/.5; row 1, class 0: logits (0, 2)/.5
    expected = (-math.log(math.exp(2) / (math.exp(2) + 1)) - math.log(1 / (1 + math.exp(4)))) / 2
    got = prototype_loss(user, prototypes, torch.tensor([0, 0]), temperature=0.5)
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_prototype_gradients_and_extreme_temperature():
    torch.manual_seed(0)
    user = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    prototypes = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor([0, 1, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda u, p: prototype_loss(u, p, classes), (user, prototypes))
    assert torch.isfinite(prototype_loss(user, prototypes, classes, temperature=1e-6))


@pytest.mark.parametrize("classes", [[0, 2], [-1, 0], [0]])
def test_prototype_loss_names_bad_classes(classes):
    with pytest.raises(InputDataError, match="classes"):
        prototype_loss(torch.ones(2, 3), torch.ones(2, 3), torch.tensor(classes))


def test_total_is_the_sum_and_terms_can_be_left_out():
    two, three = torch.tensor(2.0), torch.tensor(3.0)
    assert total_loss(two, three).item() == 5.0
    assert total_loss(two, three, contrastive_weight=0.5).item() == 4.0
    assert total_loss(None, three).item() == 3.0
    with pytest.raises(ValueError, match="both losses"):
        total_loss(None, None)


def _device(rank: int, meeting: str, pairs: tuple[torch.Tensor, torch.Tensor], folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    user, answer = (rows[2 * rank : 2 * rank + 2].clone().requires_grad_() for rows in pairs)
    (all_user, offset), (all_answer, _) = gather_rows(user), gather_rows(answer)
    loss = contrastive_loss(
        user, answer, gathered_user=all_user, gathered_answer=all_answer, row_offset=offset
    )
    loss.backward()
    torch.save((loss.detach(), user.grad, answer.grad), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow  # two interpreters that import torch
def test_two_devices_have_the_gradient_of_one_big_batch(tmp_path):
    torch.manual_seed(3)
    user, answer = torch.randn(4, 3), torch.randn(4, 3)
    mp.spawn(_device, args=(str(tmp_path / "meeting"), (user, answer), str(tmp_path)), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    user.requires_grad_()
    answer.requires_grad_()
    whole = contrastive_loss(user, answer)
    whole.backward()
    assert torch.stack([part[0] for part in parts]).mean().item() == pytest.approx(whole.item(), abs=1e-6)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]) / 2, user.grad)  # DDP's average
    torch.testing.assert_close(torch.cat([part[2] for part in parts]) / 2, answer.grad)


def test_gathering_alone_gives_the_rows_back():
    rows = torch.randn(3, 2)
    got, offset = gather_rows(rows)
    assert got is rows
    assert offset == 0
