"""One user at one cutoff as arrays: what a prefix is made of, gathered once for many training steps.

The tensors made of it equal :class:`~qanchor_plugin.engine.build_prefix.PrefixBuilder`'s tokens before they
are rounded for storage. Shape letters: L prefix tokens (template included), N events, G groups,
M modalities, F count features.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.engine.features import age_features, summary_features
from qanchor_plugin.engine.prefix import DAY_OFFSET, Slot, day_number, layout, positions
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.sequence.slice import UserSlice

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Rows = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.intp]]
"""(N, 16) uint8 text ids to (N,) rows of a table of vectors."""
Placed = list[tuple[int, Slot]]
"""Slots of one kind with their places in the prefix."""
NONE = np.zeros(0, np.int32)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A prefix to be built with gradients.

    Attributes:
        user: Feast's serialised entity key.
        cutoff: microseconds since 1970 UTC.
        positions_L: (L,) int32, template first.
        modality_names: the names that the ``modality`` numbers below stand for.
        event_at, event_text, event_modality: (N,) place in the prefix, row of the vectors, number.
        group_at, group_text: (G,); group_features: (G, F).
        total_modality: (M,), total_features: (M, F): counts of each present modality.
        modality_at, modality_number: (M,) modality tokens (none where the config has none).
        user_at: (1,) the user token (none likewise).
        edge_at, edge_modality, edge_end: start and end tokens.
        suffix_start: where a suffix starts (``index``) or the cutoff's position (``day``).
        age_F: (3,), see :func:`..engine.features.age_features`.
    """

    user: bytes
    cutoff: int
    positions_L: Int32
    modality_names: tuple[str, ...]
    event_at: Int32
    event_text: Int32
    event_modality: Int32
    group_at: Int32
    group_text: Int32
    group_features: Float32
    total_modality: Int32
    total_features: Float32
    modality_at: Int32
    modality_number: Int32
    user_at: Int32
    edge_at: Int32
    edge_modality: Int32
    edge_end: Int32
    suffix_start: int
    age_F: Float32


def reading_of(user: UserSlice, config: EngineConfig, rows: Rows, *, num_template: int = 1) -> Reading:
    """The slice as arrays.

    Args:
        user: the slice.
        config: the engine's.
        rows: finds texts in the table of vectors that the reading will be used with.
        num_template: tokens before the soft ones.
    """
    slots = layout(user, config)
    places: dict[str, Placed] = {}
    for place, slot in enumerate(slots):
        places.setdefault(slot.kind, []).append((num_template + place, slot))
    number = {one.name: place for place, one in enumerate(user.modalities)}
    of = {kind: _modalities(placed, number) for kind, placed in places.items()}
    events, groups, edges = (
        places.get("evt", []), places.get("grp", []), places.get("start", []) + places.get("end", []),
    )  # fmt: skip
    texts = _text_rows(user, events, groups, rows)
    present = [one for one in user.modalities if slots and one.summary is not None]
    today = day_number(user.cutoff, config.epoch_day)
    age = None if user.as_of is None else today - day_number(user.as_of, config.epoch_day)
    where = positions(
        slots, num_template=num_template, as_of=user.as_of, time=config.time, epoch_day=config.epoch_day
    )
    counts = [user.groups[slot.row].summary for _, slot in groups]
    return Reading(
        user=user.user,
        cutoff=user.cutoff,
        positions_L=where,
        modality_names=tuple(number),
        event_at=_at(events),
        event_text=texts[: len(events)],
        event_modality=of.get("evt", NONE),
        group_at=_at(groups),
        group_text=texts[len(events) :],
        group_features=summary_features(counts, [user.as_of] * len(groups)),
        total_modality=np.array([number[one.name] for one in present], np.int32),
        total_features=summary_features([one.summary for one in present], [user.as_of] * len(present)),
        modality_at=_at(places.get("mdl", [])),
        modality_number=of.get("mdl", NONE),
        user_at=_at(places.get("usr", [])),
        edge_at=_at(edges),
        edge_modality=_modalities(edges, number),
        edge_end=np.array([slot.kind == "end" for _, slot in edges], np.int32),
        suffix_start=len(where) if config.time == "index" else DAY_OFFSET + today,
        age_F=age_features([age])[0],
    )


def _at(placed: Placed) -> Int32:
    return np.array([place for place, _ in placed], np.int32)


def _modalities(placed: Placed, number: Mapping[str, int]) -> Int32:
    return np.array([number.get(slot.modality, 0) for _, slot in placed], np.int32)


def _text_rows(user: UserSlice, events: Placed, groups: Placed, rows: Rows) -> Int32:
    """Rows of the events' texts, then of the groups'."""
    of_name = {one.name: one.text_id for one in user.modalities}
    ids = [of_name[slot.modality][slot.row] for _, slot in events]
    ids += [user.groups[slot.row].text_id for _, slot in groups]
    return rows(np.array(ids, np.uint8).reshape(-1, TEXT_ID_BYTES)).astype(np.int32)
