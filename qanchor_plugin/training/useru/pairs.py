"""The pre-training pair, as a record and as a row of ``useru_pairs``."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from qanchor_plugin import schemas as S
from qanchor_plugin.schemas import USERU_PAIRS
from qanchor_plugin.training.useru.plan import is_held_out


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One query and its answer about a user at a cutoff (microseconds since 1970 UTC).

    Attributes:
        kind: ``future``, ``uqa`` or ``outcome``.
        topic: a ``uqa`` topic's name, or the action of an ``outcome``.
        evidence: JSON-like, for a person to read beside it.
        alternatives: every answer of the scale, the given one among them; none for free text.
        shard: number of the block of users that it belongs to.
    """

    user: bytes
    user_key: str
    cutoff: int
    kind: str
    topic: str
    query: str
    answer: str
    generator: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    shard: int = 0

    @property
    def held_out(self) -> bool:
        """Whether the user is kept from training."""
        return is_held_out(self.user)


def pairs_table(pairs: Iterable[Pair]) -> pa.Table:
    """Pairs as rows of ``USERU_PAIRS``, in their order."""
    rows = list(pairs)
    columns: dict[str, list[Any]] = {
        name: [getattr(pair, name) for pair in rows]
        for name in USERU_PAIRS.names
        if name not in (S.EVIDENCE, S.CUTOFF)
    }
    columns[S.CUTOFF] = pa.array([pair.cutoff for pair in rows], pa.int64()).cast(S.INSTANT)
    columns[S.EVIDENCE] = [json.dumps(pair.evidence, sort_keys=True, ensure_ascii=False) for pair in rows]
    return pa.table({name: columns[name] for name in USERU_PAIRS.names}, schema=USERU_PAIRS)
