"""One user's soft tokens at a cutoff: what stands where, and at which position (numpy only).

Order, coarse to fine (Query-as-Anchor eq. 1-2): template; z_usr; z_mdl of each present modality;
z_grp; then each present modality's events between its start and end tokens.
Shape letters: L tokens, C token width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.sequence.slice import MICROS_PER_DAY, ModalitySlice, UserSlice

LAYOUT = "template,usr,mdl,grp,start,evt,end/2"
"""Version of the order and positions below, and of the keys' lengths; part of the prefix digest."""

DAY_OFFSET = 256
"""Position of day 0, after the longest template."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """One user's soft tokens at a cutoff, independent of any query.

    Attributes:
        user: Feast's serialised entity key.
        visible_digest: identity of the events seen.
        as_of: newest event seen, microseconds since 1970 UTC; None without one.
        num_events: events seen, before caps; 0 makes the defined empty prefix.
        tokens: (L, C) of the engine's ``token_dtype``; bfloat16 as uint16 bit patterns.
        positions: (L,) int32.
    """

    user: bytes
    visible_digest: str
    as_of: int | None
    num_events: int
    tokens: npt.NDArray[Any]
    positions: npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class PreviewLine:
    """One prefix token for people: its kind, modality ("" where none), text, and UTC day or None."""

    kind: str
    modality: str
    text: str
    day: str | None


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One soft token to be filled.

    Attributes:
        kind: ``usr``, ``mdl``, ``grp``, ``start``, ``evt`` or ``end``.
        modality: name, or "".
        row: index into the user's groups (``grp``) or the modality's events (``evt``), else 0.
        at: the instant it stands at, microseconds; None for the user's last event.
    """

    kind: str
    modality: str = ""
    row: int = 0
    at: int | None = None


def layout(user: UserSlice, config: EngineConfig) -> list[Slot]:
    """The soft tokens of a user after the template; none without events (the empty prefix)."""
    if user.num_events == 0:
        return []
    present = [one for one in user.modalities if one.summary is not None]
    slots = [Slot(kind="usr")] if config.user_token else []
    if config.modality_tokens:
        slots += [Slot(kind="mdl", modality=one.name, at=_last_at(one)) for one in present]
    if config.group_tokens:
        slots += [
            Slot(kind="grp", modality=group.modality, row=row, at=group.summary.last_at)
            for row, group in enumerate(user.groups)
        ]
    for one in present:
        slots += _event_slots(one)
    return slots


def _event_slots(one: ModalitySlice) -> list[Slot]:
    if not len(one.text_id):
        return []
    events = [
        Slot(kind="evt", modality=one.name, row=row, at=None if one.kind == "tabular" else int(at))
        for row, at in enumerate(one.event_at)
    ]
    start, end = (Slot(kind=kind, modality=one.name, at=_last_at(one)) for kind in ("start", "end"))
    return [start, *events, end]


def _last_at(one: ModalitySlice) -> int | None:
    """Tabular rows describe the user as of now: they stand at the last event's day."""
    return None if one.kind == "tabular" or one.summary is None else one.summary.last_at


def day_number(instant: int, epoch_day: int) -> int:
    """Whole UTC days from the epoch to an instant (microseconds); earlier ones count as 0."""
    return max(0, instant // MICROS_PER_DAY - epoch_day)


def positions(
    slots: list[Slot], *, num_template: int, as_of: int | None, time: str, epoch_day: int
) -> npt.NDArray[np.int32]:
    """(L,) int32 for template and slots: 0, 1, 2... for ``index``; for ``day`` the template stands at
    0, 1..., and every slot at ``DAY_OFFSET`` + its day number."""
    if time == "index":
        return np.arange(num_template + len(slots), dtype=np.int32)
    days = [day_number(as_of or 0 if slot.at is None else slot.at, epoch_day) for slot in slots]
    return np.array([*range(num_template), *(DAY_OFFSET + day for day in days)], np.int32)


def preview(
    user: UserSlice, slots: list[Slot], template: str, text_of: Mapping[bytes, str]
) -> list[PreviewLine]:
    """The prefix as lines for people; texts that are not in ``text_of`` show as their id."""
    by_name = {one.name: one for one in user.modalities}
    lines = [PreviewLine(kind="template", modality="", text=template, day=None)]
    for slot in slots:
        day = None if slot.at is None else str(np.datetime64(slot.at, "us").astype("datetime64[D]"))
        text = _text(user, by_name, slot, text_of)
        lines.append(PreviewLine(kind=slot.kind, modality=slot.modality, text=text, day=day))
    return lines


def _text(
    user: UserSlice, by_name: Mapping[str, ModalitySlice], slot: Slot, text_of: Mapping[bytes, str]
) -> str:
    if slot.kind == "grp":
        group = user.groups[slot.row]
        name = _named(group.text_id, text_of)
        return f"{group.key}: {name} ×{group.summary.count}"
    if slot.kind == "evt":
        return _named(by_name[slot.modality].text_id[slot.row], text_of)
    if slot.kind == "mdl":
        return f"{by_name[slot.modality].num_visible} events"
    return f"{user.num_events} events" if slot.kind == "usr" else ""


def _named(text_id: npt.NDArray[np.uint8], text_of: Mapping[bytes, str]) -> str:
    key = text_id.tobytes()
    return text_of.get(key, f"<text {key.hex()}>")
