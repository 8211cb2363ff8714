"""Which prefixes go through the engine together, and their tensors.

A language model takes users of any lengths together, without padding (:mod:`..decoder`); what a user gets
then differs by rounding alone from what it gets alone (1e-6 in float32). Otherwise forwards have a fixed
shape: a prefix is padded to a multiple chosen by its own length alone, and users of one padded length go
through together. Shape letters: B users of a forward, L padded prefix length, W token width.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qanchor_plugin.engine.backbone import KV
from qanchor_plugin.engine.build_prefix import restored
from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.engine.features import age_features
from qanchor_plugin.engine.kv import KeptKV
from qanchor_plugin.engine.kv_codec import decode
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import DAY_OFFSET, Prefix, day_number

Places = npt.NDArray[np.intp]
ANSWER_TOKENS = 1024
"""Suffix tokens that keep a CPU busy: fewer read the weights for too little (docs/engine-speed.md)."""


def forwards(
    modules: EngineModules, prefixes: Sequence[Prefix], stored: npt.NDArray[np.bool_], longest: int
) -> Iterator[tuple[Places, int]]:
    """Places of the prefixes of each forward, and its size B: all with stored keys and values, or none.

    Args:
        stored: (P,) whether a prefix's keys and values are there.
        longest: tokens of the longest pack of queries.
    """
    lengths = np.array([padded_length(modules, one) for one in prefixes])
    chunks = _flat_chunks if modules.is_flat else _fixed_chunks
    for members in (np.flatnonzero(~stored), np.flatnonzero(stored)):
        for among, size in chunks(modules, lengths[members], longest):
            yield members[among], size


def _flat_chunks(modules: EngineModules, lengths: Places, longest: int) -> Iterator[tuple[Places, int]]:
    """Neighbours in length, as many as fill the token budget (what their keys and values take) and, on a
    CPU, the suffix step's products."""
    order = np.argsort(lengths, kind="stable")
    busy = ANSWER_TOKENS if device_of(modules).type == "cpu" else modules.config.token_budget
    most = -(-busy // longest)
    start = 0
    while start < len(order):
        fits = [
            count
            for count in range(1, min(most, len(order) - start) + 1)
            if count * (int(lengths[order[start + count - 1]]) + longest) <= modules.config.token_budget
        ]
        chunk = order[start : start + max(fits, default=1)]
        yield chunk, len(chunk)
        start += len(chunk)


def _fixed_chunks(modules: EngineModules, lengths: Places, longest: int) -> Iterator[tuple[Places, int]]:
    """Users of one padded length, and the forward's fixed size."""
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        most = rows_per_forward(modules.config, int(length) + longest, device_of(modules))
        for start in range(0, len(members), most):
            chunk = members[start : start + most]
            yield chunk, most if modules.compute_dtype != torch.float32 else _power_of_two(len(chunk), most)


def rows_per_forward(config: EngineConfig, tokens: int, device: torch.device) -> int:
    """Users of one forward of fixed shape: what the token budget allows.

    A row's rounding follows the forward's shape. On a CPU every user has a forward alone: no byte of an
    answer depends on who else is asked. On other devices the shape is fixed in bfloat16, and in float32
    smaller last batches differ by less than 1e-6.
    """
    if device.type == "cpu":
        return 1
    return _power_of_two(max(1, config.token_budget // tokens) // 2 + 1, 1 << 20)


class PrefixBatch:
    """Prefixes right-padded to (B, L); the rows beyond the given ones repeat the last.

    Attributes:
        valid: (B, L) bool, false where padded.
    """

    def __init__(self, modules: EngineModules, prefixes: Sequence[Prefix], size: int) -> None:
        self._modules, self._num = modules, len(prefixes)
        self._prefixes = [*prefixes, *[prefixes[-1]] * (size - len(prefixes))]
        config, device = modules.config, device_of(modules)
        length = max(padded_length(modules, one) for one in prefixes)
        rows = torch.zeros(size, length, config.token_width, dtype=modules.compute_dtype)
        positions = torch.zeros(size, length, dtype=torch.int64)
        valid = torch.zeros(size, length, dtype=torch.bool)
        for row, prefix in enumerate(self._prefixes):
            count = len(prefix.tokens)
            rows[row, :count] = restored(prefix.tokens, config.token_dtype).to(rows.dtype)
            positions[row, :count] = torch.from_numpy(prefix.positions)
            valid[row, :count] = True
        self._rows, self._positions, self.valid = rows.to(device), positions.to(device), valid.to(device)

    def keys_and_values(self, stored: Sequence[KeptKV]) -> KV:
        """The cache of the prefixes: from what was stored of each, or prefilled where nothing was."""
        if not stored:
            return self._modules.prefill(self._rows, self._positions, self.valid)
        size, length = self.valid.shape
        return decode(self._modules, stored, self._prefixes[: self._num], length, size=size)

    def at(self, cutoffs: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B,) where the suffix starts and (B, F) what it is told of the age, one cutoff a prefix."""
        device, config = self.valid.device, self._modules.config
        cutoffs = [*cutoffs, *[cutoffs[-1]] * (len(self._prefixes) - len(cutoffs))]
        ages = [age_days(config, *pair) for pair in zip(self._prefixes, cutoffs, strict=True)]
        if config.time == "index":
            start = torch.tensor([len(one.tokens) for one in self._prefixes])
        else:
            start = torch.tensor([DAY_OFFSET + day_number(one, config.epoch_day) for one in cutoffs])
        return start.to(device), torch.from_numpy(age_features(ages)).to(device)


def padded_length(modules: EngineModules, prefix: Prefix) -> int:
    """The length that a prefix is padded to, by its own length alone."""
    multiple = 1 if modules.is_flat else modules.config.length_multiple
    return -(-len(prefix.tokens) // multiple) * multiple


def age_days(config: EngineConfig, prefix: Prefix, cutoff: int) -> int | None:
    """Days from the newest event to the cutoff; None without one."""
    if prefix.as_of is None:
        return None
    return day_number(cutoff, config.epoch_day) - day_number(prefix.as_of, config.epoch_day)


def device_of(modules: EngineModules) -> torch.device:
    """Where the engine stands."""
    return modules.projection.inner.weight.device


def _power_of_two(count: int, most: int) -> int:
    """The least power of two that is not below ``count``, ``most`` at most."""
    return min(most, 1 << (count - 1).bit_length())
