"""Linear layers of the fast forward: packed for oneDNN, as they are, or in int8.

Shape letters: N rows, K inputs, M outputs.
"""

import platform
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu


def multiply(layers: Sequence[nn.Linear], dtype: torch.dtype, *, int8: bool) -> "Linear":
    """Layers of the same input, to be multiplied by at once, their outputs side by side. Make it anew when
    the layers' weights change: one layer that is not packed shares its weight, all else is a copy.

    Args:
        layers: of any float type, all of them with a bias or none.
        dtype: what it is to compute in.
        int8: weights in int8 with one scale an output, rows with one scale each, so that no row's answer
            depends on another's.
    """
    parts = [one.weight.detach() for one in layers]
    weight = torch.cat(parts) if len(parts) > 1 else parts[0]
    biases = [one.bias.detach() for one in layers if one.bias is not None]
    bias = torch.cat(biases).to(dtype) if biases else None
    if int8:
        return _Int8(weight.float(), bias)
    return (_Packed if _packs(weight.device) else Linear)(weight.to(dtype), bias)


def _packs(device: torch.device) -> bool:
    """Is it a processor of the kind that oneDNN was measured on, and is oneDNN there?"""
    measured = device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    return measured and torch.backends.mkldnn.is_available()


class Linear:
    """Weights as they are, multiplied by PyTorch's choice."""

    def __init__(self, weight_MK: Tensor, bias_M: Tensor | None) -> None:
        self.weight_MK, self.bias_M = weight_MK, bias_M

    def __call__(self, rows_NK: Tensor) -> Tensor:
        """(N, M)."""
        return linear(rows_NK, self.weight_MK, self.bias_M)

    def silu(self, rows_NK: Tensor) -> Tensor:
        """(N, M): SiLU of the product."""
        return silu(self(rows_NK), inplace=True)

    def times(self, rows_NK: Tensor, other_NM: Tensor) -> Tensor:
        """(N, M): the product times ``other_NM``, element by element."""
        return self(rows_NK).mul_(other_NM)

    def plus(self, rows_NK: Tensor, other_NM: Tensor) -> Tensor:
        """(N, M): the product plus ``other_NM``."""
        return self(rows_NK).add_(other_NM)


class _Packed(Linear):
    """Weights in oneDNN's own layout, a copy; what follows the product happens while it is written."""

    PACKED_FOR = 256
    """Rows that the layout is chosen for; any number may be multiplied (docs/engine-speed.md)."""

    def __init__(self, weight_MK: Tensor, bias_M: Tensor | None) -> None:
        self.bias_M = bias_M
        self.packed_MK = torch.ops.mkldnn._reorder_linear_weight(weight_MK.contiguous(), self.PACKED_FOR)

    def __call__(self, rows_NK: Tensor) -> Tensor:
        return self._then("none", rows_NK)

    def silu(self, rows_NK: Tensor) -> Tensor:
        return self._then("swish", rows_NK)

    def times(self, rows_NK: Tensor, other_NM: Tensor) -> Tensor:
        return self._with("mul", rows_NK, other_NM)

    def plus(self, rows_NK: Tensor, other_NM: Tensor) -> Tensor:
        return self._with("add", rows_NK, other_NM)

    def _then(self, what: str, rows_NK: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.default(rows_NK, self.packed_MK, self.bias_M, what, [], "")

    def _with(self, what: str, rows_NK: Tensor, other_NM: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(rows_NK, other_NM, self.packed_MK, self.bias_M, what)


class _Int8(Linear):
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
