"""One user at one cutoff as arrays: what a prefix is made of, gathered once for many training steps.

The tensors made of it equal :class:`~qanchor_plugin.engine.build_prefix.PrefixBuilder`'s tokens before they
are rounded for storage. Shape letters: L prefix tokens (template included), N events, G groups,
M modalities, F count features.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.engine.features import age_features, summary_features
from qanchor_plugin.engine.prefix import DAY_OFFSET, Slot, day_number, layout, positions
from qanchor_plugin.sequence.slice import UserSlice

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Rows = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.intp]]
"""(N, 16) uint8 text ids to (N,) rows of a table of vectors."""


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
    places: dict[str, list[tuple[int, Slot]]] = {}
    for place, slot in enumerate(slots):
        places.setdefault(slot.kind, []).append((num_template + place, slot))
    events, groups = places.get("evt", []), places.get("grp", [])
    edges = places.get("start", []) + places.get("end", [])
    present = [one for one in user.modalities if slots and one.summary is not None]
    names = tuple(one.name for one in user.modalities)
    number, by_name = {name: place for place, name in enumerate(names)}, {m.name: m for m in user.modalities}
    ids = [by_name[slot.modality].text_id[slot.row] for _, slot in events]
    ids += [user.groups[slot.row].text_id for _, slot in groups]
    found = rows(np.array(ids, np.uint8).reshape(-1, 16)).astype(np.int32)
    where = positions(
        slots, num_template=num_template, as_of=user.as_of, time=config.time, epoch_day=config.epoch_day
    )
    today = day_number(user.cutoff, config.epoch_day)
    age = None if user.as_of is None else today - day_number(user.as_of, config.epoch_day)

    def at(chosen: list[tuple[int, Slot]]) -> Int32:
        return np.array([place for place, _ in chosen], np.int32)

    def modality(chosen: list[tuple[int, Slot]]) -> Int32:
        return np.array([number[slot.modality] for _, slot in chosen], np.int32)

    return Reading(
        user=user.user,
        cutoff=user.cutoff,
        positions_L=where,
        modality_names=names,
        event_at=at(events),
        event_text=found[: len(events)],
        event_modality=modality(events),
        group_at=at(groups),
        group_text=found[len(events) :],
        group_features=summary_features(
            [user.groups[slot.row].summary for _, slot in groups], [user.as_of] * len(groups)
        ),
        total_modality=np.array([number[one.name] for one in present], np.int32),
        total_features=summary_features([one.summary for one in present], [user.as_of] * len(present)),
        modality_at=at(places.get("mdl", [])),
        modality_number=modality(places.get("mdl", [])),
        user_at=at(places.get("usr", [])),
        edge_at=at(edges),
        edge_modality=modality(edges),
        edge_end=np.array([slot.kind == "end" for _, slot in edges], np.int32),
        suffix_start=len(where) if config.time == "index" else DAY_OFFSET + today,
        age_F=age_features([age])[0],
    )
