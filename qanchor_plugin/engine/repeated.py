"""One prefix asked at several cutoffs, on a CPU: read once, then answered at each.

What a training set asks: rows of different days between two events see the same and differ by their
suffix alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from qanchor_plugin.engine.prefix import Prefix

Float32 = npt.NDArray[np.float32]


def rows_by_prefix(prefixes: Sequence[Prefix]) -> list[list[int]]:
    """The places of each distinct prefix (the same object), in order of first appearance."""
    places: dict[int, list[int]] = {}
    for row, one in enumerate(prefixes):
        places.setdefault(id(one), []).append(row)
    return list(places.values())


def embed_repeated(
    out: Float32,
    prefixes: Sequence[Prefix],
    cutoffs: Sequence[int],
    *,
    together: Callable[[Sequence[Prefix], Sequence[int]], Float32],
    at_each: Callable[[Prefix, Sequence[int]], Float32],
) -> Float32:
    """``out`` (P, Q, 128) filled: prefixes that stand once go through together, others are read once each.

    Args:
        together: (prefixes, cutoffs) -> (P, Q, 128).
        at_each: (prefix, K cutoffs) -> (K, Q, 128).
    """
    groups = rows_by_prefix(prefixes)
    single = [rows[0] for rows in groups if len(rows) == 1]
    if single:
        out[single] = together([prefixes[n] for n in single], [cutoffs[n] for n in single])
    for rows in groups:
        if len(rows) > 1:
            out[rows] = at_each(prefixes[rows[0]], [cutoffs[n] for n in rows])
    return out
