"""Queries after a prefix: packing several into one row, and who may see whom.

Every query sees the user's valid prefix tokens and, causally, itself; queries are blind to each other,
and positions restart for each. What queries begin with alike ("Will this household ...") is read once: a
token's state depends on nothing after it. Shape letters: B users, Q queries, L prefix tokens, S packed
tokens, T tokens of the longest query, W hidden width, M meaning width, C = W + M.
"""
# ruff: noqa: N815  (fields carry shape suffixes, like all tensors here)

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qanchor_plugin.engine.features import NUM_AGE_FEATURES
from qanchor_plugin.identity import digest

NOWHERE = -1
"""Stands in ``Packed.path_QT`` beyond a query's last token."""


@dataclass(frozen=True, kw_only=True)
class PreparedQuery:
    """A query made ready once, to be asked of any number of users.

    Attributes:
        query: its text.
        rows: (T, C) float32: query tokens, soft prompt if any, ``<USER_EMB>`` last.
        engine_digest: the engine that made it; no other may use it.
        soft_prompt_digest: of the soft prompt, or None.
    """

    query: str
    rows: npt.NDArray[np.float32]
    engine_digest: str
    soft_prompt_digest: str | None

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        """Identity of the rows."""
        return digest("query", self.engine_digest, list(self.rows.shape), self.rows.tobytes())


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Queries side by side in one row of tokens, the same for every user.

    Attributes:
        rows_SC: float32 inputs, zeros where padded.
        path_QT: int64 packed tokens of each query in turn, ``NOWHERE`` beyond its last.
        sees_SS: bool, which packed tokens a token attends to: itself, and those before it in its query.
        offset_S: int64 place of each token within its query, from its first token.
        left_S: int64 tokens of its query that follow it; for a token of several queries, of the first.
        last_Q: int64 packed token of each query's ``<USER_EMB>``.
    """

    rows_SC: Tensor
    path_QT: Tensor
    sees_SS: Tensor
    offset_S: Tensor
    left_S: Tensor
    last_Q: Tensor

    def to(self, device: torch.device) -> "Packed":
        """The same on a device."""
        return Packed(**{name: value.to(device) for name, value in vars(self).items()})


def pack(queries: Sequence[npt.NDArray[Any]], *, multiple: int, time: str) -> Packed:
    """The queries' rows (each (T, C)) in one row of tokens, padded to a multiple.

    Args:
        queries: each ends with its ``<USER_EMB>``.
        multiple: of the number of packed tokens.
        time: see :func:`suffix_positions`. Where it is ``index``, equal rows that several queries begin with
            stand once; by ``day`` a token's position follows from the length of its query.
    """
    paths, distinct = _paths(queries, share=time == "index")
    size = -(-len(distinct) // multiple) * multiple
    rows = torch.zeros(size, queries[0].shape[1])
    rows[: len(distinct)] = torch.from_numpy(np.stack(distinct))
    sees = torch.eye(size, dtype=torch.bool)
    offset, left = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
    path_QT = torch.full((len(paths), max(map(len, paths))), NOWHERE)
    for number in reversed(range(len(paths))):
        path = torch.tensor(paths[number])
        steps = torch.arange(len(path))
        path_QT[number, : len(path)] = path
        offset[path], left[path] = steps, steps.flip(0)
        sees[path.unsqueeze(1), path.unsqueeze(0)] |= steps.unsqueeze(1) >= steps.unsqueeze(0)
    return Packed(
        rows_SC=rows,
        path_QT=path_QT,
        sees_SS=sees,
        offset_S=offset,
        left_S=left,
        last_Q=torch.tensor([path[-1] for path in paths]),
    )


def _paths(
    queries: Sequence[npt.NDArray[Any]], *, share: bool
) -> tuple[list[list[int]], list[npt.NDArray[Any]]]:
    """Each query's packed tokens, and the rows of those: a tree of what queries begin with."""
    distinct: list[npt.NDArray[Any]] = []
    after: dict[tuple[int, bytes], int] = {}
    paths: list[list[int]] = []
    for query in queries:
        path: list[int] = []
        for step, row in enumerate(query):
            if share and step < len(query) - 1:  # <USER_EMB> is told more, see SuffixEncoder
                key = (path[-1] if path else NOWHERE, row.tobytes())
                place = after.setdefault(key, len(distinct))
            else:
                place = len(distinct)
            if place == len(distinct):
                distinct.append(row)
            path.append(place)
        paths.append(path)
    return paths, distinct


def alone(rows_TC: Tensor) -> Packed:
    """One query's rows as they are, so that they may carry gradients."""
    steps = torch.arange(len(rows_TC), device=rows_TC.device)
    return Packed(
        rows_SC=rows_TC,
        path_QT=steps.unsqueeze(0),
        sees_SS=steps.unsqueeze(1) >= steps,
        offset_S=steps,
        left_S=steps.flip(0),
        last_Q=steps[-1:],
    )


def packs(queries: Sequence[PreparedQuery], *, max_tokens: int) -> list[list[int]]:
    """Query numbers, in order, in runs of at most ``max_tokens`` tokens (one query at least), before what
    they share is counted once."""
    runs: list[list[int]] = []
    used = 0
    for number, query in enumerate(queries):
        if not runs or used + query.num_tokens > max_tokens:
            runs.append([])
            used = 0
        runs[-1].append(number)
        used += query.num_tokens
    return runs


def causal_mask(valid_BL: Tensor) -> Tensor:
    """(B, L, L) bool of a prefill: each token sees valid earlier ones and itself."""
    length = valid_BL.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid_BL.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=valid_BL.device)
    return (causal & valid_BL.unsqueeze(1)) | itself


def block_mask(sees_SS: Tensor, valid_BL: Tensor) -> Tensor:
    """(B, S, L + S) bool: a token sees the valid prefix, and what ``Packed.sees_SS`` says of the suffix."""
    prefix = valid_BL.unsqueeze(1).expand(-1, len(sees_SS), -1)
    return torch.cat([prefix, sees_SS.expand(len(valid_BL), -1, -1)], dim=2)


def suffix_positions(packed: Packed, start_B: Tensor, *, time: str) -> Tensor:
    """(B, S) int64 positions.

    Args:
        packed: the queries.
        start_B: for ``index`` the user's prefix length, where every query starts; for ``day`` the
            cutoff's position, where every ``<USER_EMB>`` stands (its query's tokens just before).
        time: the engine's choice.
    """
    return start_B.unsqueeze(1) + (packed.offset_S if time == "index" else -packed.left_S)


class SuffixEncoder(nn.Module):
    """The suffix's own weights: ``<USER_EMB>``, and for the ``meaning`` backbone the query adapter and
    the age of the user's last event."""

    def __init__(self, hidden: int, *, encoder_dim: int | None, with_age: bool) -> None:
        super().__init__()
        self.user_emb = nn.Parameter(torch.empty(hidden))
        self.query = nn.Linear(encoder_dim, hidden) if encoder_dim is not None else None
        self.age = nn.Linear(NUM_AGE_FEATURES, hidden) if with_age else None

    def rows(self, packed: Packed, age_BF: Tensor) -> Tensor:
        """(B, S, C): the packed rows of each user, ``<USER_EMB>`` told the last event's age."""
        rows = packed.rows_SC.unsqueeze(0).repeat(len(age_BF), 1, 1)
        if self.age is None:
            return rows
        aged = self.age(age_BF).unsqueeze(1)
        rows[:, packed.last_Q, : aged.shape[2]] = rows[:, packed.last_Q, : aged.shape[2]] + aged
        return rows
