"""Users read once and kept: the keys and values of prefix and query, to which a step only adds the prompt.

Shape letters: B users, L tokens kept (prefix, then query), T query tokens, P rows of the prompt, H heads,
D head width, C token width, F age features.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qanchor_plugin.engine.backbone import KV
from qanchor_plugin.engine.build_prefix import restored
from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.engine.features import age_features
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import DAY_OFFSET, Prefix, day_number
from qanchor_plugin.engine.query import answering_rows
from qanchor_plugin.engine.suffix import alone, block_mask

READ_TOGETHER = 32


@dataclass(frozen=True, kw_only=True)
class _Read:
    """One user: keys and values (H, L, D) each, where a suffix starts, and the age (F,)."""

    kv: list[Tensor]
    start: int
    age_F: Tensor


class ReadUsers:
    """Users ready to be asked one query with any soft prompt of ``num_tokens`` rows.

    Args:
        modules: the engine's, frozen.
        prefixes: the users'.
        cutoffs: one a prefix, microseconds since 1970 UTC.
        rows: (T + 1, C) float32, the query's rows without a soft prompt, ``<USER_EMB>`` last.
        num_tokens: P.
        max_bytes: what may be kept in memory; with more, every batch is read anew.
    """

    def __init__(
        self,
        modules: EngineModules,
        prefixes: Sequence[Prefix],
        cutoffs: Sequence[int],
        rows: npt.NDArray[np.float32],
        *,
        num_tokens: int,
        max_bytes: int,
    ) -> None:
        self.modules, self.num_tokens = modules, num_tokens
        self._prefixes, self._cutoffs = prefixes, cutoffs
        self._device = modules.projection.inner.weight.device
        made = torch.from_numpy(rows).to(self._device)
        self._query_TC, self.user_emb_C = made[:-1], made[-1]
        self._kept: dict[int, _Read] = {}
        self.keeps = self._bytes() <= max_bytes
        if self.keeps:
            for start in range(0, len(prefixes), READ_TOGETHER):
                places = range(start, min(start + READ_TOGETHER, len(prefixes)))
                self._kept.update(zip(places, self._read(places), strict=True))

    def embed(self, places: Sequence[int], prompt_PC: Tensor) -> Tensor:
        """(B, 128) float32, L2-normalised; gradients reach ``prompt_PC``."""
        users = [self._kept[place] for place in places] if self.keeps else self._read(places)
        longest = max(one.kv[0].shape[1] for one in users)
        valid = torch.zeros(len(users), longest, dtype=torch.bool, device=self._device)
        for row, one in enumerate(users):
            valid[row, : one.kv[0].shape[1]] = True
        kv = [_side_by_side([one.kv[part] for one in users], longest) for part in range(len(users[0].kv))]
        start = torch.tensor([one.start for one in users], device=self._device)
        age = torch.stack([one.age_F for one in users]).to(self._device)
        rows = alone(answering_rows(prompt_PC, self.user_emb_C))
        return self.modules.answer(kv, valid, rows, start, age)[:, 0]

    @torch.no_grad()
    def _read(self, places: Sequence[int]) -> list[_Read]:
        """Prefill of the prefixes, then of the query after them."""
        modules, config = self.modules, self.modules.config
        prefixes = [self._prefixes[place] for place in places]
        cutoffs = [self._cutoffs[place] for place in places]
        rows, positions, valid = _padded(prefixes, config)
        rows, positions, valid = rows.to(self._device), positions.to(self._device), valid.to(self._device)
        kv = modules.prefill(rows, positions, valid)
        starts, num = _starts(prefixes, cutoffs, config), len(self._query_TC)
        after = num if config.time == "index" else 0
        first = 0 if config.time == "index" else -(num + self.num_tokens - 1)
        query = torch.tensor(starts).unsqueeze(1) + first + torch.arange(num)
        kv = self._after_query(kv, valid, query.to(self._device))
        length = valid.shape[1]
        found = []
        for row, (prefix, cutoff) in enumerate(zip(prefixes, cutoffs, strict=True)):
            count = len(prefix.tokens)
            own = [torch.cat([one[row, :, :count], one[row, :, length:]], dim=1) for one in kv]
            age = torch.from_numpy(age_features([_age_days(config, prefix, cutoff)]))[0]
            found.append(_Read(kv=own, start=starts[row] + after, age_F=age))
        return found

    def _after_query(self, kv: KV, valid_BL: Tensor, positions_BT: Tensor) -> KV:
        num = len(self._query_TC)
        device = self._device
        rows = self._query_TC.to(self.modules.compute_dtype).expand(len(valid_BL), -1, -1)
        allowed = block_mask(alone(rows[0]).sees_SS, valid_BL)
        in_suffix = torch.ones(num, dtype=torch.bool, device=device)
        none = torch.zeros(0, dtype=torch.int64, device=device)
        _, longer = self.modules.backbone.encode(rows, positions_BT, allowed, in_suffix, kv, none)
        return longer

    def _bytes(self) -> int:
        """What keeping every user takes: measured on the first, by the token."""
        if not len(self._prefixes):
            return 0
        first = self._read([0])[0].kv
        a_token = sum(one.shape[0] * one.shape[2] * one.element_size() for one in first)
        tokens = sum(len(one.tokens) + len(self._query_TC) for one in self._prefixes)
        return tokens * a_token


def _side_by_side(parts_HLD: Sequence[Tensor], length: int) -> Tensor:
    """(B, H, L, D), right-padded with zeros."""
    first = parts_HLD[0]
    whole = first.new_zeros(len(parts_HLD), first.shape[0], length, first.shape[2])
    for row, one in enumerate(parts_HLD):
        whole[row, :, : one.shape[1]] = one
    return whole


def _padded(prefixes: Sequence[Prefix], config: EngineConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Token rows (B, L, C) float32, positions (B, L) and validity (B, L)."""
    length = max(len(one.tokens) for one in prefixes)
    rows = torch.zeros(len(prefixes), length, config.token_width)
    positions = torch.zeros(len(prefixes), length, dtype=torch.int64)
    valid = torch.zeros(len(prefixes), length, dtype=torch.bool)
    for row, one in enumerate(prefixes):
        count = len(one.tokens)
        rows[row, :count] = restored(one.tokens, config.token_dtype).float()
        positions[row, :count] = torch.from_numpy(one.positions)
        valid[row, :count] = True
    return rows, positions, valid


def _starts(prefixes: Sequence[Prefix], cutoffs: Sequence[int], config: EngineConfig) -> list[int]:
    """Where a suffix starts (``index``), or the cutoff's position (``day``)."""
    if config.time == "index":
        return [len(one.tokens) for one in prefixes]
    return [DAY_OFFSET + day_number(one, config.epoch_day) for one in cutoffs]


def _age_days(config: EngineConfig, prefix: Prefix, cutoff: int) -> int | None:
    if prefix.as_of is None:
        return None
    return day_number(cutoff, config.epoch_day) - day_number(prefix.as_of, config.epoch_day)
