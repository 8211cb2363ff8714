"""Some pairs of a lake's ``useru_pairs``, for a person to read."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from qanchor_plugin import schemas as S
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.training.useru.pairs import Pair

_ORDER = (S.USER, S.CUTOFF, S.KIND, S.QUERY)


def sampled_pairs(tables: LakeTables, num_pairs: int, *, seed: int = 0) -> list[Pair]:
    """At most ``num_pairs`` pairs of one shard, by chance and evenly of each kind; the same for a seed.

    Raises:
        LakeError: no pairs have been built.
    """
    shards = np.unique(tables.read(S.PAIRS_TABLE, columns=[S.SHARD])[S.SHARD].to_numpy())
    if not len(shards):
        return []
    rng = np.random.default_rng(seed)
    rows = tables.read(S.PAIRS_TABLE, where=ds.field(S.SHARD) == int(rng.choice(shards)))
    rows = rows.sort_by([(name, "ascending") for name in _ORDER])
    kinds = rows[S.KIND].to_pylist()
    places = {
        kind: rng.permutation([n for n, one in enumerate(kinds) if one == kind])
        for kind in sorted(set(kinds))
    }
    most = max(map(len, places.values()))
    turns = [int(order[turn]) for turn in range(most) for order in places.values() if turn < len(order)]
    return [_pair(row) for row in _with_micros(rows.take(sorted(turns[:num_pairs]))).to_pylist()]


def _with_micros(rows: pa.Table) -> pa.Table:
    place = rows.schema.get_field_index(S.CUTOFF)
    return rows.set_column(place, S.CUTOFF, rows[S.CUTOFF].cast(pa.int64()))


def _pair(row: dict[str, Any]) -> Pair:
    given = {name: value for name, value in row.items() if name != S.HELD_OUT}
    given[S.EVIDENCE] = json.loads(row[S.EVIDENCE])
    given[S.ALTERNATIVES] = tuple(row[S.ALTERNATIVES] or ())
    return Pair(**given)
