"""Prefixes to keys and values worth storing: one prefill, no query."""

from collections.abc import Sequence

import numpy as np
import torch

from qanchor_plugin.engine.build_prefix import restored
from qanchor_plugin.engine.embedding import rows_per_forward
from qanchor_plugin.engine.kv import KeptKV
from qanchor_plugin.engine.kv_codec import encode
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import Prefix


def prefill_kept(
    modules: EngineModules, prefixes: Sequence[Prefix], *, scheme: str, kv_digest: str
) -> list[KeptKV]:
    """The stored form of every prefix, in order, padded as :func:`..embedding.embed_packed` pads."""
    config, device = modules.config, modules.projection.inner.weight.device
    multiple = config.length_multiple
    padded = np.array([-(-len(one.tokens) // multiple) * multiple for one in prefixes], np.int64)
    made: dict[int, KeptKV] = {}
    for length in np.unique(padded):
        members = np.flatnonzero(padded == length)
        most = rows_per_forward(config, int(length), device)
        for start in range(0, len(members), most):
            chunk = members[start : start + most]
            together = [prefixes[number] for number in chunk]
            kv = modules.prefill(*_padded(modules, together, int(length)))
            for row, (number, prefix) in enumerate(zip(chunk, together, strict=True)):
                made[int(number)] = encode(modules, kv, row, prefix, scheme=scheme, kv_digest=kv_digest)
    return [made[number] for number in range(len(prefixes))]


def _padded(
    modules: EngineModules, prefixes: Sequence[Prefix], length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Soft tokens, positions and which of them are real."""
    size, device = len(prefixes), modules.projection.inner.weight.device
    rows = torch.zeros(size, length, modules.config.token_width, dtype=modules.compute_dtype)
    positions = torch.zeros(size, length, dtype=torch.int64)
    valid = torch.zeros(size, length, dtype=torch.bool)
    for row, prefix in enumerate(prefixes):
        count = len(prefix.tokens)
        rows[row, :count] = restored(prefix.tokens, modules.config.token_dtype).to(rows.dtype)
        positions[row, :count] = torch.from_numpy(prefix.positions)
        valid[row, :count] = True
    return rows.to(device), positions.to(device), valid.to(device)
