"""Rows of every device, so that each sees all the others' negatives."""

import torch
import torch.distributed as dist
from torch import Tensor


class _AllGather(torch.autograd.Function):
    """all_gather whose backward sums what every device wants of a row."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        summed = grads[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """((W, D) rows of every device in rank order, where own row 0 stands); gradients reach all.

    ``rows`` is (B, D) with the same B everywhere. Without a process group: the rows, 0.
    With DDP, which averages gradients, the mean of the devices' losses has the gradient of one
    big batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows, 0
    return _AllGather.apply(rows), dist.get_rank() * len(rows)
