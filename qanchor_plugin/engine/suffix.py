"""Queries after a prefix: packing several into one row, and who may see whom.

Every query sees the user's valid prefix tokens and, causally, itself; queries are blind to each other,
and positions restart for each. Shape letters: B users, Q queries, L prefix tokens, S packed tokens,
W hidden width, M meaning width, C = W + M.
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

PAD = -1
"""Query number of packed tokens that belong to no query."""


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
        query_S: int64 query number of each token, ``PAD`` where padded.
        offset_S: int64 place of each token within its query.
        length_S: int64 length of the token's query.
        last_Q: int64 index of each query's ``<USER_EMB>``.
    """

    rows_SC: Tensor
    query_S: Tensor
    offset_S: Tensor
    length_S: Tensor
    last_Q: Tensor

    def to(self, device: torch.device) -> "Packed":
        """The same on a device."""
        return Packed(**{name: value.to(device) for name, value in vars(self).items()})


def pack(queries: Sequence[npt.NDArray[Any]], *, multiple: int) -> Packed:
    """The queries' rows (each (T, C)) in one row of tokens, padded to a multiple."""
    lengths = [len(one) for one in queries]
    total = sum(lengths)
    size = -(-total // multiple) * multiple
    rows = torch.zeros(size, queries[0].shape[1])
    rows[:total] = torch.from_numpy(np.concatenate(queries))
    query = torch.full((size,), PAD)
    offset, length = torch.zeros(size, dtype=torch.int64), torch.ones(size, dtype=torch.int64)
    starts = np.cumsum([0, *lengths])
    for number, (start, count) in enumerate(zip(starts, lengths, strict=False)):
        query[start : start + count] = number
        offset[start : start + count] = torch.arange(count)
        length[start : start + count] = count
    return Packed(
        rows_SC=rows,
        query_S=query,
        offset_S=offset,
        length_S=length,
        last_Q=torch.from_numpy(starts[1:] - 1),
    )


def packs(queries: Sequence[PreparedQuery], *, max_tokens: int) -> list[list[int]]:
    """Query numbers, in order, in runs of at most ``max_tokens`` tokens (one query at least)."""
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


def block_mask(query_S: Tensor, valid_BL: Tensor) -> Tensor:
    """(B, S, L + S) bool: a query's token sees the valid prefix, and its own query's tokens up to itself.

    Padded tokens see themselves alone, so that no row is empty.
    """
    size = len(query_S)
    causal = torch.ones(size, size, dtype=torch.bool, device=query_S.device).tril()
    same = query_S.unsqueeze(0) == query_S.unsqueeze(1)
    itself = torch.eye(size, dtype=torch.bool, device=query_S.device)
    real_S = query_S != PAD
    own = (same & causal & real_S.unsqueeze(1)) | itself
    prefix = valid_BL.unsqueeze(1) & real_S.view(1, -1, 1)
    return torch.cat([prefix, own.expand(len(valid_BL), -1, -1)], dim=2)


def suffix_positions(packed: Packed, start_B: Tensor, *, time: str) -> Tensor:
    """(B, S) int64 positions.

    Args:
        packed: the queries.
        start_B: for ``index`` the user's prefix length, where every query starts; for ``day`` the
            cutoff's position, where every ``<USER_EMB>`` stands (its query's tokens just before).
        time: the engine's choice.
    """
    if time == "index":
        return start_B.unsqueeze(1) + packed.offset_S
    return start_B.unsqueeze(1) - (packed.length_S - 1 - packed.offset_S)


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
