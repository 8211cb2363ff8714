"""Texts after a prefix, each in a slot of its own: other texts for every user, gradients kept.

A slot is ``[query or soft rows; <USER_EMB>; answer tokens]``: what comes before ``<USER_EMB>`` stands
right-aligned, so that ``<USER_EMB>`` has the same place in every slot; the answer, if any, follows it
left-aligned. Slots are blind to each other. Shape letters: B users, Q slots a user, S = Q * T slot tokens,
L prefix tokens, C token width.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Rows of slots.

    Attributes:
        rows_BSC: float32.
        real_BS: bool, False where padded.
        offset_S: int64 place relative to the slot's ``<USER_EMB>`` (0 there, negative before).
        slot_S: int64 slot of each token.
        before_BS: int64 number of real tokens before ``<USER_EMB>`` in the token's slot.
        emb_Q: int64 places of the slots' ``<USER_EMB>``.
    """

    rows_BSC: Tensor
    real_BS: Tensor
    offset_S: Tensor
    slot_S: Tensor
    before_BS: Tensor
    emb_Q: Tensor

    @property
    def num_tokens(self) -> int:
        """Real tokens."""
        return int(self.real_BS.sum())

    def answer_places(self, length: int) -> Tensor:
        """(Q, length + 1): ``<USER_EMB>`` and the ``length`` places after it, of every slot."""
        return self.emb_Q.unsqueeze(1) + torch.arange(length + 1, device=self.emb_Q.device)


def in_slots(texts: Sequence[Sequence[tuple[Tensor, Tensor | None]]]) -> Slots:
    """Every user's texts in slots.

    Args:
        texts: by user, then slot: the rows up to and with ``<USER_EMB>`` (t, C), and the rows of an answer
            (a, C) or None. Users with fewer texts than others get empty slots.
    """
    num_slots = max(len(one) for one in texts)
    before = max(len(rows) for one in texts for rows, _ in one)
    after = max([len(rows) for one in texts for _, rows in one if rows is not None] or [0])
    size = before + after
    first = texts[0][0][0]
    rows = first.new_zeros(len(texts) * num_slots * size, first.shape[1])
    places, parts = [], []
    counts = torch.zeros(len(texts), num_slots, dtype=torch.int64)
    for user, one in enumerate(texts):
        for slot, (asked, answer) in enumerate(one):
            end = (user * num_slots + slot) * size + before
            counts[user, slot] = len(asked) - 1
            places.append(torch.arange(end - len(asked), end))
            parts.append(asked)
            if answer is not None:
                places.append(torch.arange(end, end + len(answer)))
                parts.append(answer)
    at = torch.cat(places).to(first.device)
    rows = rows.index_copy(0, at, torch.cat(parts))
    real = torch.zeros(len(rows), dtype=torch.bool, device=first.device)
    real[at] = True
    step = torch.arange(num_slots * size)
    return Slots(
        rows_BSC=rows.view(len(texts), num_slots * size, -1),
        real_BS=real.view(len(texts), -1),
        offset_S=(step % size - (before - 1)).to(first.device),
        slot_S=(step // size).to(first.device),
        before_BS=counts.repeat_interleave(size, dim=1).to(first.device),
        emb_Q=(torch.arange(num_slots) * size + before - 1).to(first.device),
    )


def slot_mask(slots: Slots, valid_BL: Tensor) -> Tensor:
    """(B, S, L + S) bool: a real token sees the valid prefix and its own slot's real tokens up to itself;
    a padded one sees itself alone."""
    size = len(slots.slot_S)
    causal = torch.ones(size, size, dtype=torch.bool, device=valid_BL.device).tril()
    same = slots.slot_S.unsqueeze(0) == slots.slot_S.unsqueeze(1)
    itself = torch.eye(size, dtype=torch.bool, device=valid_BL.device)
    real = slots.real_BS
    own = ((same & causal) & real.unsqueeze(1) & real.unsqueeze(2)) | itself
    return torch.cat([valid_BL.unsqueeze(1) & real.unsqueeze(2), own], dim=2)


def slot_positions(slots: Slots, start_B: Tensor, *, time: str) -> Tensor:
    """(B, S) int64: the positions that :func:`..engine.suffix.suffix_positions` gives; an answer's tokens go
    on from ``<USER_EMB>``."""
    if time == "index":
        return start_B.unsqueeze(1) + (slots.offset_S + slots.before_BS).clamp(min=0)
    return (start_B.unsqueeze(1) + slots.offset_S).clamp(min=0)
