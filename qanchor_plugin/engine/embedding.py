"""Prefixes and queries to embeddings, by a budget of tokens.

Each user's prefix is read once (prefill); all queries then run packed over its keys and values, which
are never copied per query. A language model on a CPU takes users of any lengths together, without padding
(:mod:`..decoder`); what a user gets then differs by rounding alone from what it gets alone (1e-6 in float32).
Elsewhere forwards have a fixed shape: a prefix is padded to a multiple chosen by its own length alone,
and users of one padded length go through together. Shape letters: P prefixes, Q queries, B users of a
forward, L padded prefix length.
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
Places = npt.NDArray[np.intp]
ANSWER_TOKENS = 256
"""Suffix tokens that keep a CPU busy: fewer read the weights for too little (docs/engine-speed.md)."""


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
        kept: stored keys and values of each prefix, or None where it is to be prefilled.
    """
    config, device = modules.config, _device(modules)
    out = np.zeros((len(prefixes), len(queries), config.embedding_dim), np.float32)
    if not len(prefixes) or not len(queries):
        return out
    runs = packs(queries, max_tokens=config.max_packed_tokens)
    multiple = 1 if modules.is_flat else config.length_multiple
    packed = [pack([queries[n].rows for n in run], multiple=multiple).to(device) for run in runs]
    longest = max(len(one.query_S) for one in packed)
    padded = np.array([-(-len(one.tokens) // multiple) * multiple for one in prefixes])
    stored = [None] * len(prefixes) if kept is None else list(kept)
    loaded = np.array([one is not None for one in stored])
    for members in (np.flatnonzero(~loaded), np.flatnonzero(loaded)):
        chunks = _flat_chunks if modules.is_flat else _fixed_chunks
        for places, size in chunks(modules, padded[members], longest):
            chunk = members[places]
            rows = [int(chunk[min(row, len(chunk) - 1)]) for row in range(size)]
            batch = _Batch(
                modules, [prefixes[n] for n in rows], [cutoffs[n] for n in rows], int(padded[chunk].max())
            )
            kv = _read(modules, batch, [prefixes[n] for n in rows], [stored[n] for n in rows])
            for run, one in zip(runs, packed, strict=True):
                answer = modules.answer(kv, batch.valid, one, batch.start, batch.age)
                out[chunk[:, None], np.array(run)] = answer[: len(chunk)].cpu().numpy()
    return out


def _read(
    modules: EngineModules, batch: "_Batch", prefixes: Sequence[Prefix], kept: Sequence[KeptKV | None]
) -> KV:
    """The prefixes' keys and values: all stored ones, or all prefilled."""
    ready = [one for one in kept if one is not None]
    if ready:
        return decode(modules, ready, prefixes, batch.valid.shape[1])
    return modules.prefill(batch.rows, batch.positions, batch.valid)


def _flat_chunks(modules: EngineModules, lengths: Places, longest: int) -> Iterator[tuple[Places, int]]:
    """Users of one forward, and its size: neighbours in length, as many as fill the suffix step's products
    and the token budget (what their keys and values take)."""
    order = np.argsort(lengths, kind="stable")
    most = -(-ANSWER_TOKENS // longest)
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
        most = rows_per_forward(modules.config, int(length) + longest, _device(modules))
        for start in range(0, len(members), most):
            chunk = members[start : start + most]
            size = most if modules.compute_dtype != torch.float32 else _power_of_two(len(chunk), most)
            yield chunk, size


def rows_per_forward(config: EngineConfig, tokens: int, device: torch.device) -> int:
    """Users of one forward of fixed shape: what the token budget allows.

    A row's rounding follows the forward's shape. On a CPU every user has a forward alone: no byte of an
    answer depends on who else is asked. On other devices the shape is fixed in bfloat16, and in float32
    smaller last batches differ by less than 1e-6.
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
    """Prefixes right-padded to one length."""

    def __init__(
        self,
        modules: EngineModules,
        prefixes: Sequence[Prefix],
        cutoffs: Sequence[int],
        length: int,
    ) -> None:
        config, device, size = modules.config, _device(modules), len(prefixes)
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
