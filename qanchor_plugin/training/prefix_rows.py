"""Readings to soft tokens, as tensors that carry gradients: the twin of the engine's ``PrefixBuilder``.

Shape letters: B readings, L padded prefix tokens, N events (or groups, modalities) of the whole batch,
V texts, E encoder width, W hidden width, M meaning width, C = W + M, F count features.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qanchor_plugin.engine.build_prefix import EVENT_MEANING, MODALITY_MEANING
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.training.reading import Reading


@dataclass(frozen=True, kw_only=True)
class ReadingBatch:
    """Readings side by side; ``*_at`` are places in the flattened (B * L) rows.

    Attributes:
        positions_BL: int64; valid_BL: bool, False where padded.
        start_B: int64 and age_BF: float32 for the suffix.
        event_user, event_at, event_text, event_modality: (N,) int64.
        group_at, group_text: (N,); group_features: (N, F).
        total_user, total_modality: (N,); total_features: (N, F).
        modality_user, modality_at, modality_number: (N,).
        edge_at, edge_modality, edge_end: (N,).
        user_at: (B',) places of the user tokens; user_row: (B',) their readings.
        modality_names: what the numbers stand for.
    """

    positions_BL: Tensor
    valid_BL: Tensor
    start_B: Tensor
    age_BF: Tensor
    event_user: Tensor
    event_at: Tensor
    event_text: Tensor
    event_modality: Tensor
    group_at: Tensor
    group_text: Tensor
    group_features: Tensor
    total_user: Tensor
    total_modality: Tensor
    total_features: Tensor
    modality_user: Tensor
    modality_at: Tensor
    modality_number: Tensor
    edge_at: Tensor
    edge_modality: Tensor
    edge_end: Tensor
    user_at: Tensor
    user_row: Tensor
    modality_names: tuple[str, ...]

    def to(self, device: torch.device) -> "ReadingBatch":
        """The same on a device."""
        tensors = {one.name: getattr(self, one.name) for one in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in tensors.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def collate(readings: Sequence[Reading]) -> ReadingBatch:
    """Readings of one profile, right-padded to the longest."""
    length = max(len(one.positions_L) for one in readings)
    positions = np.zeros((len(readings), length), np.int64)
    valid = np.zeros((len(readings), length), bool)
    for row, one in enumerate(readings):
        positions[row, : len(one.positions_L)] = one.positions_L
        valid[row, : len(one.positions_L)] = True

    def joined(name: str, offset: bool = False) -> Tensor:
        parts = [getattr(one, name) + (row * length if offset else 0) for row, one in enumerate(readings)]
        array = np.concatenate(parts)
        return torch.from_numpy(array.astype(np.float32 if array.dtype == np.float32 else np.int64))

    def owner(name: str) -> Tensor:
        return torch.from_numpy(
            np.repeat(np.arange(len(readings)), [len(getattr(r, name)) for r in readings])
        )

    return ReadingBatch(
        positions_BL=torch.from_numpy(positions),
        valid_BL=torch.from_numpy(valid),
        start_B=torch.tensor([one.suffix_start for one in readings]),
        age_BF=torch.from_numpy(np.stack([one.age_F for one in readings])),
        event_user=owner("event_at"),
        event_at=joined("event_at", offset=True),
        event_text=joined("event_text"),
        event_modality=joined("event_modality"),
        group_at=joined("group_at", offset=True),
        group_text=joined("group_text"),
        group_features=joined("group_features"),
        total_user=owner("total_modality"),
        total_modality=joined("total_modality"),
        total_features=joined("total_features"),
        modality_user=owner("modality_at"),
        modality_at=joined("modality_at", offset=True),
        modality_number=joined("modality_number"),
        edge_at=joined("edge_at", offset=True),
        edge_modality=joined("edge_modality"),
        edge_end=joined("edge_end"),
        user_at=joined("user_at", offset=True),
        user_row=owner("user_at"),
        modality_names=readings[0].modality_names,
    )


def prefix_rows(
    modules: EngineModules, batch: ReadingBatch, vectors_VE: Tensor, template_TW: Tensor
) -> Tensor:
    """(B, L, C) float32 soft tokens, zeros where padded.

    Args:
        modules: the engine's, whose hierarchy gets gradients.
        batch: from :func:`collate`.
        vectors_VE: float32, the texts' vectors.
        template_TW: rows of the template (``start`` of the meaning backbone).
    """
    num, length = batch.valid_BL.shape
    width = modules.config.token_width
    flat = torch.zeros(num * length, width, device=vectors_VE.device)
    flat = _put(flat, *_template(template_TW, num, length, width))
    flat = _put(flat, *_events(modules, batch, vectors_VE))
    flat = _put(flat, *_groups(modules, batch, vectors_VE))
    flat = _put(flat, *_summaries(modules, batch, vectors_VE))
    flat = _put(flat, *_edges(modules, batch, width))
    return flat.view(num, length, width)


def _put(flat: Tensor, at: Tensor, rows: Tensor) -> Tensor:
    if not len(at):
        return flat
    wide = nn.functional.pad(rows, (0, flat.shape[1] - rows.shape[1]))
    return flat.index_add(0, at, wide)


def _template(template_TW: Tensor, num: int, length: int, width: int) -> tuple[Tensor, Tensor]:
    places = torch.arange(num, device=template_TW.device).unsqueeze(1) * length
    at = (places + torch.arange(len(template_TW), device=template_TW.device)).flatten()
    return at, template_TW.repeat(num, 1)


def _events(modules: EngineModules, batch: ReadingBatch, vectors_VE: Tensor) -> tuple[Tensor, Tensor]:
    """Each distinct (modality, text) of the batch is adapted once."""
    rows, order = [], []
    for number, name in enumerate(batch.modality_names):
        mine = (batch.event_modality == number).nonzero().squeeze(1)
        if not len(mine):
            continue
        distinct, back = batch.event_text[mine].unique(return_inverse=True)
        vectors = vectors_VE[distinct]
        made = modules.hierarchy.events(name, vectors)
        if modules.space is not None:
            made = torch.cat([made, modules.space.texts(vectors) * EVENT_MEANING], 1)
        rows.append(made[back])
        order.append(mine)
    if not rows:
        return batch.event_at, vectors_VE[:0]
    return batch.event_at[torch.cat(order)], torch.cat(rows)


def _groups(modules: EngineModules, batch: ReadingBatch, vectors_VE: Tensor) -> tuple[Tensor, Tensor]:
    if not len(batch.group_at):
        return batch.group_at, vectors_VE[:0]
    vectors = vectors_VE[batch.group_text]
    made = modules.hierarchy.groups(vectors, batch.group_features)
    if modules.space is not None:
        distinct, back = batch.group_text.unique(return_inverse=True)
        made = torch.cat([made, modules.space.texts(vectors_VE[distinct])[back]], 1)
    return batch.group_at, made


def _summaries(modules: EngineModules, batch: ReadingBatch, vectors_VE: Tensor) -> tuple[Tensor, Tensor]:
    """Modality tokens, then user tokens."""
    hierarchy, num_names = modules.hierarchy, len(batch.modality_names)
    num_users = len(batch.valid_BL)
    slot = batch.event_user * num_names + batch.event_modality
    sums = vectors_VE.new_zeros(num_users * num_names, vectors_VE.shape[1])
    sums = sums.index_add(0, slot, vectors_VE[batch.event_text])
    counts = torch.bincount(slot, minlength=num_users * num_names).to(sums)
    means = sums / counts.clamp(min=1.0).unsqueeze(1)
    present = (counts > 0).to(sums).view(num_users, num_names)
    of_user = means.view(num_users, num_names, -1).sum(1) / present.sum(1).clamp(min=1.0).unsqueeze(1)
    totals = _totals(modules, batch)
    slot = batch.modality_user * num_names + batch.modality_number
    modality = hierarchy.modalities(means[slot]) + totals[slot]
    user = hierarchy.users(of_user[batch.user_row])
    user = user + totals.view(num_users, num_names, -1).sum(1)[batch.user_row]
    if modules.space is not None:
        there = (counts[slot] > 0).to(sums).unsqueeze(1) * MODALITY_MEANING
        modality = torch.cat([modality, modules.space.texts(means[slot]) * there], 1)
        user = nn.functional.pad(user, (0, modality.shape[1] - user.shape[1]))
    return torch.cat([batch.modality_at, batch.user_at]), torch.cat([modality, user])


def _totals(modules: EngineModules, batch: ReadingBatch) -> Tensor:
    """(B * modalities, W): counts of each user's modalities, zeros where absent."""
    num_names = len(batch.modality_names)
    made = batch.age_BF.new_zeros(len(batch.valid_BL) * num_names, modules.config.hidden)
    if not modules.config.summaries:
        return made
    for number, name in enumerate(batch.modality_names):
        mine = (batch.total_modality == number).nonzero().squeeze(1)
        if len(mine):
            told = modules.hierarchy.totals(name, batch.total_features[mine])
            made = made.index_add(0, batch.total_user[mine] * num_names + number, told)
    return made


def _edges(modules: EngineModules, batch: ReadingBatch, width: int) -> tuple[Tensor, Tensor]:
    if not len(batch.edge_at):
        return batch.edge_at, batch.age_BF.new_zeros(0, width)
    edges = torch.stack(
        [modules.hierarchy.edge(name, end) for name in batch.modality_names for end in (False, True)]
    )
    return batch.edge_at, edges[batch.edge_modality * 2 + batch.edge_end]
