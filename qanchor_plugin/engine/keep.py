"""Prefixes to keys and values worth storing: one prefill, no query."""

from collections.abc import Sequence

import numpy as np

from qanchor_plugin.engine.forward import PrefixBatch, forwards
from qanchor_plugin.engine.kv import KeptKV
from qanchor_plugin.engine.kv_codec import encode
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import Prefix

_LONGEST = 64
"""Suffix tokens that forwards leave room for; few users at a time, for their caches are large."""


def prefill_kept(
    modules: EngineModules, prefixes: Sequence[Prefix], *, scheme: str, kv_digest: str
) -> list[KeptKV]:
    """The stored form of every prefix, in order, prefilled in the forwards that answer queries."""
    made: dict[int, KeptKV] = {}
    for places, size in forwards(modules, prefixes, np.zeros(len(prefixes), bool), _LONGEST):
        together = [prefixes[place] for place in places]
        kv = PrefixBatch(modules, together, size).keys_and_values([])
        for row, (place, prefix) in enumerate(zip(places, together, strict=True)):
            made[int(place)] = encode(modules, kv, row, prefix, scheme=scheme, kv_digest=kv_digest)
    return [made[place] for place in range(len(prefixes))]
