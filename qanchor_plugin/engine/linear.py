"""Linear layers of the fast CPU forward: as they are, held in float32, or in int8.

Shape letters: N rows, K inputs, M outputs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Multiply = Callable[[Tensor], Tensor]
"""(N, K) to (N, M)."""
FEW_ROWS = 64
"""Up to so many rows a product is faster with the weights on its left (docs/engine-speed.md)."""


def multiply(layer: nn.Linear, dtype: torch.dtype, *, int8: bool) -> Multiply:
    """The layer as a function; float32 weights are shared with it, not copied.

    Args:
        layer: of any float type.
        dtype: what it is to compute in; another than its own is held as a copy.
        int8: weights in int8 with one scale an output, rows with one scale each, so that no row's answer
            depends on another's.
    """
    weight = layer.weight.detach()
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    if int8:
        return _Int8(weight.float(), bias)
    return _Float(weight.to(dtype), bias)


class _Float:
    """Weights as they are; which side of the product they stand on follows from the number of rows."""

    def __init__(self, weight_MK: Tensor, bias_M: Tensor | None) -> None:
        self.weight_MK, self.weight_KM, self.bias_M = weight_MK, weight_MK.t(), bias_M

    def __call__(self, rows_NK: Tensor) -> Tensor:
        if len(rows_NK) <= FEW_ROWS:
            answer = torch.mm(self.weight_MK, rows_NK.t()).t()
            return answer if self.bias_M is None else answer.add_(self.bias_M)
        if self.bias_M is None:
            return torch.mm(rows_NK, self.weight_KM)
        return torch.addmm(self.bias_M, rows_NK, self.weight_KM)


class _Int8:
    """Weights quantised once, rows at each call; products are summed in int32."""

    def __init__(self, weight_MK: Tensor, bias_M: Tensor | None) -> None:
        self.scale_M = weight_MK.abs().amax(1).clamp_min(1e-12) / 127
        self.weight_KM = (weight_MK / self.scale_M.unsqueeze(1)).round().to(torch.int8).t()
        self.bias_M = bias_M

    def __call__(self, rows_NK: Tensor) -> Tensor:
        scale_N1 = rows_NK.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        whole = torch._int_mm((rows_NK / scale_N1).round_().to(torch.int8), self.weight_KM)
        answer = whole.float().mul_(scale_N1).mul_(self.scale_M)
        return answer if self.bias_M is None else answer.add_(self.bias_M)
