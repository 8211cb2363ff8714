"""Prefixes to keys and values worth storing: one prefill, no query."""

from collections.abc import Sequence

import numpy as np

from qanchor_plugin.engine.forward import PrefixBatch, forwards
from qanchor_plugin.engine.kv import KeptKV
from qanchor_plugin.engine.kv_codec import encode
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import Prefix


def prefill_kept(
    modules: EngineModules, prefixes: Sequence[Prefix], *, scheme: str, kv_digest: str
) -> list[KeptKV]:
    """The stored form of every prefix, in order, prefilled as :func:`..embedding.embed_packed` does."""
    made: dict[int, KeptKV] = {}
    nothing_stored = np.zeros(len(prefixes), bool)
    for places, size in forwards(modules, prefixes, nothing_stored, longest=1):
        together = [prefixes[number] for number in places]
        kv = PrefixBatch(modules, together, size).keys_and_values([])
        for row, (number, prefix) in enumerate(zip(places.tolist(), together, strict=True)):
            made[number] = encode(modules, kv, row, prefix, scheme=scheme, kv_digest=kv_digest)
    return [made[number] for number in range(len(prefixes))]
