"""Prefixes and queries to embeddings, in forwards of fixed shape.

A prefix is padded to a multiple chosen by its own length alone, and users of one padded length go
through together: what a user gets does not depend on the others of the call. Each user's prefix is
read once (prefill); all queries then run packed over its keys and values, which are never copied per
query. Shape letters: P prefixes, Q queries, B users of a forward, L padded prefix length.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qanchor_plugin.engine.build_prefix import restored
from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.engine.features import age_features
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import DAY_OFFSET, Prefix, day_number
from qanchor_plugin.engine.repeated import embed_repeated, rows_by_prefix
from qanchor_plugin.engine.suffix import Packed, PreparedQuery, pack, packs

Float32 = npt.NDArray[np.float32]


def embed_packed(
    modules: EngineModules,
    prefixes: Sequence[Prefix],
    queries: Sequence[PreparedQuery],
    cutoffs: Sequence[int],
) -> Float32:
    """(P, Q, 128) float32, L2-normalised, in the order given."""
    config, device = modules.config, _device(modules)
    out = np.zeros((len(prefixes), len(queries), config.embedding_dim), np.float32)
    if not len(prefixes) or not len(queries):
        return out
    if device.type == "cpu" and len(rows_by_prefix(prefixes)) < len(prefixes):
        return embed_repeated(
            out,
            prefixes,
            cutoffs,
            together=lambda some, at: embed_packed(modules, some, queries, at),
            at_each=lambda one, at: _embed_at_each(modules, one, queries, at),
        )
    runs = packs(queries, max_tokens=config.max_packed_tokens)
    packed = [
        pack([queries[n].rows for n in run], multiple=config.length_multiple).to(device) for run in runs
    ]
    longest = max(len(one.query_S) for one in packed)
    multiple = config.length_multiple
    padded = np.array([-(-len(one.tokens) // multiple) * multiple for one in prefixes])
    for length in np.unique(padded):
        members = np.flatnonzero(padded == length)
        most = rows_per_forward(config, int(length) + longest, device)
        for start in range(0, len(members), most):
            chunk = members[start : start + most]
            size = most if modules.compute_dtype != torch.float32 else _power_of_two(len(chunk), most)
            batch = _Batch(
                modules, [prefixes[n] for n in chunk], [cutoffs[n] for n in chunk], int(length), size
            )
            kv = modules.prefill(batch.rows, batch.positions, batch.valid)
            for run, one in zip(runs, packed, strict=True):
                answer = modules.answer(kv, batch.valid, one, batch.start, batch.age)
                out[chunk[:, None], np.array(run)] = answer[: len(chunk)].cpu().numpy()
    return out


def _embed_at_each(
    modules: EngineModules, prefix: Prefix, queries: Sequence[PreparedQuery], cutoffs: Sequence[int]
) -> Float32:
    """(K, Q, 128) float32: one prefix, prefilled once, at K cutoffs."""
    config, device = modules.config, _device(modules)
    out = np.zeros((len(cutoffs), len(queries), config.embedding_dim), np.float32)
    multiple = config.length_multiple
    length = -(-len(prefix.tokens) // multiple) * multiple
    first = _Batch(modules, [prefix], [cutoffs[0]], length, 1)
    kv = modules.prefill(first.rows, first.positions, first.valid)
    for run in packs(queries, max_tokens=config.max_packed_tokens):
        packed = pack([queries[n].rows for n in run], multiple=multiple).to(device)
        for row, cutoff in enumerate(cutoffs):
            at = _Batch(modules, [prefix], [cutoff], length, 1)
            out[row, run] = modules.answer(kv, first.valid, packed, at.start, at.age)[0].cpu().numpy()
    return out


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
        cutoffs: Sequence[int],
        length: int,
        size: int,
    ) -> None:
        config, device = modules.config, _device(modules)
        last = len(prefixes) - 1
        prefixes = [prefixes[min(row, last)] for row in range(size)]
        cutoffs = [cutoffs[min(row, last)] for row in range(size)]
        rows = torch.zeros(size, length, config.token_width, dtype=modules.compute_dtype)
        positions = torch.zeros(size, length, dtype=torch.int64)
        valid = torch.zeros(size, length, dtype=torch.bool)
        for row, prefix in enumerate(prefixes):
            count = len(prefix.tokens)
            rows[row, :count] = restored(prefix.tokens, config.token_dtype).to(rows.dtype)
            positions[row, :count] = torch.from_numpy(prefix.positions)
            valid[row, :count] = True
        self.rows, self.positions, self.valid = rows.to(device), positions.to(device), valid.to(device)
        self.start = self._start(config, prefixes, cutoffs).to(device)
        ages = [_age_days(config, *pair) for pair in zip(prefixes, cutoffs, strict=True)]
        self.age = torch.from_numpy(age_features(ages)).to(device)

    @staticmethod
    def _start(config: EngineConfig, prefixes: Sequence[Prefix], cutoffs: Sequence[int]) -> Tensor:
        if config.time == "index":
            return torch.tensor([len(one.tokens) for one in prefixes])
        return torch.tensor([DAY_OFFSET + day_number(one, config.epoch_day) for one in cutoffs])


def _age_days(config: EngineConfig, prefix: Prefix, cutoff: int) -> int | None:
    if prefix.as_of is None:
        return None
    return day_number(cutoff, config.epoch_day) - day_number(prefix.as_of, config.epoch_day)


def _power_of_two(count: int, most: int) -> int:
    """The least power of two that is not below ``count``, ``most`` at most."""
    return min(most, 1 << (count - 1).bit_length())


def _device(modules: EngineModules) -> torch.device:
    return modules.projection.inner.weight.device


__all__ = ["Packed", "embed_one_by_one", "embed_packed", "rows_per_forward"]
