"""Prefixes and queries to embeddings, by a budget of tokens.

Each prefix is read once (prefill), however many cutoffs it is asked at; all queries then run packed over its
keys and values, which are never copied per query. Who goes through together: :mod:`..forward`. Shape letters:
P prefixes, Q queries.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from qanchor_plugin.engine.build_prefix import restored
from qanchor_plugin.engine.features import age_features
from qanchor_plugin.engine.forward import PrefixBatch, age_days, device_of, forwards
from qanchor_plugin.engine.kv import KeptKV
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import DAY_OFFSET, Prefix, day_number
from qanchor_plugin.engine.suffix import PreparedQuery, pack, packs

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
    config, device = modules.config, device_of(modules)
    out = np.zeros((len(prefixes), len(queries), config.embedding_dim), np.float32)
    if not len(prefixes) or not len(queries):
        return out
    runs = packs(queries, max_tokens=config.max_packed_tokens)
    multiple = 1 if modules.is_flat else config.length_multiple
    packed = [
        pack([queries[n].rows for n in run], multiple=multiple, time=config.time).to(device) for run in runs
    ]
    longest = max(len(one.rows_SC) for one in packed)
    rows_of = _rows_of_each(prefixes)
    distinct = [prefixes[rows[0]] for rows in rows_of]
    stored = [None if kept is None else kept[rows[0]] for rows in rows_of]
    loaded = np.array([one is not None for one in stored])
    for places, size in forwards(modules, distinct, loaded, longest):
        batch = PrefixBatch(modules, [distinct[n] for n in places], size)
        kv = batch.keys_and_values([one for n in places if (one := stored[n]) is not None])
        for rows in _turns([rows_of[n] for n in places]):
            start, age = batch.at([cutoffs[row] for row in rows])
            made = [modules.answer(kv, batch.valid, ready, start, age) for ready in packed]
            out[rows[:, None], np.concatenate(runs)] = torch.cat(made, dim=1)[: len(rows)].cpu().numpy()
    return out


def _rows_of_each(prefixes: Sequence[Prefix]) -> list[list[int]]:
    """The rows at which each prefix was given."""
    rows: dict[int, list[int]] = {}
    for row, one in enumerate(prefixes):
        rows.setdefault(id(one), []).append(row)
    return list(rows.values())


def _turns(rows_of: Sequence[Sequence[int]]) -> Iterator[npt.NDArray[np.intp]]:
    """The rows of some prefixes, one of each at a time; a prefix with fewer repeats its last."""
    for turn in range(max(map(len, rows_of))):
        yield np.array([rows[min(turn, len(rows) - 1)] for rows in rows_of])


def embed_one_by_one(
    modules: EngineModules,
    prefixes: Sequence[Prefix],
    queries: Sequence[PreparedQuery],
    cutoffs: Sequence[int],
) -> Float32:
    """The same as :func:`embed_packed` by the slow obvious path: one user and one query at a time,
    prefix and suffix encoded together, nothing cached, padded or packed."""
    config, device = modules.config, device_of(modules)
    out = np.zeros((len(prefixes), len(queries), config.embedding_dim), np.float32)
    for row, (prefix, cutoff) in enumerate(zip(prefixes, cutoffs, strict=True)):
        soft = restored(prefix.tokens, config.token_dtype).float()
        age = torch.from_numpy(age_features([age_days(config, prefix, cutoff)]))
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
