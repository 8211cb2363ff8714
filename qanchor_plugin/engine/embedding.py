"""Prefixes and queries to embeddings, in forwards of fixed shape.

A prefix is padded to a multiple chosen by its own length alone, and users of one padded length go
through together: what a user gets does not depend on the others of the call. Each prefix is read once
(prefill), however many cutoffs it is asked at; all queries then run packed over its keys and values, which
are never copied per query. Shape letters: P prefixes, Q queries, B users of a forward, L padded length.
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
from qanchor_plugin.engine.suffix import Packed, PreparedQuery, pack, packs

Float32 = npt.NDArray[np.float32]


def embed_packed(
    modules: EngineModules,
    prefixes: Sequence[Prefix],
    queries: Sequence[PreparedQuery],
    cutoffs: Sequence[int],
    *,
    kept: Sequence[KeptKV | None] | None = None,
) -> Float32:
    """(P, Q, 128) float32, L2-normalised, in the order given.

    Args:
        prefixes: the same object given several times, at several cutoffs, is prefilled once.
        kept: stored keys and values of each prefix, or None where it is to be prefilled.
    """
    config, device = modules.config, _device(modules)
    out = np.zeros((len(prefixes), len(queries), config.embedding_dim), np.float32)
    if not len(prefixes) or not len(queries):
        return out
    runs = packs(queries, max_tokens=config.max_packed_tokens)
    packed = [
        pack([queries[n].rows for n in run], multiple=config.length_multiple).to(device) for run in runs
    ]
    longest = max(len(one.query_S) for one in packed)
    stored = [None] * len(prefixes) if kept is None else list(kept)
    for rows_of, size in _chunks(modules, prefixes, stored, longest):
        first = [rows[0] for rows in rows_of]
        batch = _Batch(modules, [prefixes[row] for row in first], size)
        kv = batch.keys_and_values([one for row in first if (one := stored[row]) is not None])
        for rows in _turns(rows_of):
            begin, age = batch.at([cutoffs[row] for row in rows])
            made = [modules.answer(kv, batch.valid, ready, begin, age) for ready in packed]
            answers = torch.cat(made, dim=1)[: len(rows_of)].cpu().numpy()
            out[rows[:, None], np.concatenate(runs)] = answers
    return out


def _chunks(
    modules: EngineModules, prefixes: Sequence[Prefix], stored: Sequence[KeptKV | None], longest: int
) -> Iterator[tuple[list[list[int]], int]]:
    """The rows of each prefix of a forward, and the forward's fixed size: prefixes of one padded length,
    either all with stored keys and values or all without."""
    asked: dict[int, list[int]] = {}
    for row, one in enumerate(prefixes):
        asked.setdefault(id(one), []).append(row)
    alike: dict[tuple[int, bool], list[list[int]]] = {}
    for rows in asked.values():
        length = _padded(modules.config, prefixes[rows[0]])
        alike.setdefault((length, stored[rows[0]] is not None), []).append(rows)
    for (length, _), members in sorted(alike.items()):
        most = rows_per_forward(modules.config, length + longest, _device(modules))
        for start in range(0, len(members), most):
            chunk = members[start : start + most]
            yield chunk, most if modules.compute_dtype != torch.float32 else _power_of_two(len(chunk), most)


def _turns(rows_of: Sequence[Sequence[int]]) -> Iterator[npt.NDArray[np.intp]]:
    """The rows of some prefixes, one of each at a time; a prefix with fewer repeats its last."""
    for turn in range(max(map(len, rows_of))):
        yield np.array([rows[min(turn, len(rows) - 1)] for rows in rows_of])


def rows_per_forward(config: EngineConfig, tokens: int, device: torch.device) -> int:
    """Users of one forward: what the token budget allows.

    A row's rounding follows the forward's shape. On a CPU one row already fills the cores, so every user
    has a forward alone: no byte of an answer depends on who else is asked. On other devices the shape is
    fixed in bfloat16, and in float32 smaller last batches differ by less than 1e-6.
    """
    if device.type == "cpu":
        return 1
    return _power_of_two(max(1, config.token_budget // tokens) // 2 + 1, 1 << 20)


def embed_one_by_one(
    modules: EngineModules,
    prefixes: Sequence[Prefix],
    queries: Sequence[PreparedQuery],
    cutoffs: Sequence[int],
) -> Float32:
    """The same as :func:`embed_packed` by the slow obvious path: one user and one query at a time,
    prefix and suffix encoded together, nothing cached, padded or packed."""
    config, device = modules.config, _device(modules)
    out = np.zeros((len(prefixes), len(queries), config.embedding_dim), np.float32)
    for row, (prefix, cutoff) in enumerate(zip(prefixes, cutoffs, strict=True)):
        soft = restored(prefix.tokens, config.token_dtype).float()
        age = torch.from_numpy(age_features([_age_days(config, prefix, cutoff)]))
        for column, query in enumerate(queries):
            suffix = torch.from_numpy(query.rows).clone()
            if modules.suffix.age is not None:
                told = modules.suffix.age(age.to(device)).cpu()
                suffix[-1, : config.hidden] += told[0]
            count = len(suffix)
            if config.time == "index":
                places = torch.arange(len(soft), len(soft) + count)
            else:
                today = DAY_OFFSET + day_number(cutoff, config.epoch_day)
                places = torch.arange(today - count + 1, today + 1)
            positions = torch.cat([torch.from_numpy(prefix.positions).long(), places])
            rows = torch.cat([soft, suffix])
            answer = modules.full(rows[None].to(device), positions[None].to(device), count)
            out[row, column] = answer[0].cpu().numpy()
    return out


class _Batch:
    """Prefixes right-padded to (size, length); the rows beyond the given ones repeat the last."""

    def __init__(
        self,
        modules: EngineModules,
        prefixes: Sequence[Prefix],
        size: int,
    ) -> None:
        config, device = modules.config, _device(modules)
        length, last = max(_padded(config, one) for one in prefixes), len(prefixes) - 1
        prefixes = [prefixes[min(row, last)] for row in range(size)]
        self._modules, self._config, self._prefixes = modules, config, prefixes
        rows = torch.zeros(size, length, config.token_width, dtype=modules.compute_dtype)
        positions = torch.zeros(size, length, dtype=torch.int64)
        valid = torch.zeros(size, length, dtype=torch.bool)
        for row, prefix in enumerate(prefixes):
            count = len(prefix.tokens)
            rows[row, :count] = restored(prefix.tokens, config.token_dtype).to(rows.dtype)
            positions[row, :count] = torch.from_numpy(prefix.positions)
            valid[row, :count] = True
        self.rows, self.positions, self.valid = rows.to(device), positions.to(device), valid.to(device)

    def keys_and_values(self, stored: Sequence[KeptKV]) -> KV:
        """The cache of the prefixes: from what was stored of each, or prefilled where nothing was."""
        if not stored:
            return self._modules.prefill(self.rows, self.positions, self.valid)
        last, (size, length) = len(stored) - 1, self.valid.shape
        kept = [stored[min(row, last)] for row in range(size)]
        return decode(self._modules, kept, self._prefixes, length)

    def at(self, cutoffs: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Where the suffix starts and what it is told of the age, one cutoff a prefix."""
        device, last = self.rows.device, len(cutoffs) - 1
        cutoffs = [cutoffs[min(row, last)] for row in range(len(self._prefixes))]
        ages = [_age_days(self._config, *pair) for pair in zip(self._prefixes, cutoffs, strict=True)]
        start = self._start(self._config, self._prefixes, cutoffs)
        return start.to(device), torch.from_numpy(age_features(ages)).to(device)

    @staticmethod
    def _start(config: EngineConfig, prefixes: Sequence[Prefix], cutoffs: Sequence[int]) -> Tensor:
        if config.time == "index":
            return torch.tensor([len(one.tokens) for one in prefixes])
        return torch.tensor([DAY_OFFSET + day_number(one, config.epoch_day) for one in cutoffs])


def _age_days(config: EngineConfig, prefix: Prefix, cutoff: int) -> int | None:
    if prefix.as_of is None:
        return None
    return day_number(cutoff, config.epoch_day) - day_number(prefix.as_of, config.epoch_day)


def _padded(config: EngineConfig, prefix: Prefix) -> int:
    """The length that a prefix is padded to: its own length's alone."""
    return -(-len(prefix.tokens) // config.length_multiple) * config.length_multiple


def _power_of_two(count: int, most: int) -> int:
    """The least power of two that is not below ``count``, ``most`` at most."""
    return min(most, 1 << (count - 1).bit_length())


def _device(modules: EngineModules) -> torch.device:
    return modules.projection.inner.weight.device


__all__ = ["Packed", "embed_one_by_one", "embed_packed", "rows_per_forward"]
