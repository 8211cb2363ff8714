"""What of a user is visible at a cutoff: the input of a prefix.

An event is visible when ``cutoff - window < event_at <= cutoff`` and ``known_at <= cutoff``.
Shape letters: N events, A amounts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.identity import digest
from qanchor_plugin.sequence.history import Events, Float64, Int64, UInt8, UserHistory

Places = npt.NDArray[np.int32]

MICROS_PER_DAY = 86_400_000_000
GROUP_HALF_LIFE_DAYS = 60.0
STATIC_AT = 0
"""``event_at`` of rows of a static source: they have no time and are always visible."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of some events, recency measured from the user's last event (never from the cutoff).

    Attributes:
        count: events.
        count_30, count_90: those of the last 30 and 90 days before the user's last event.
        first_at, last_at: microseconds since 1970 UTC.
        amounts: (A,) float64, summed; nulls count as zero.
    """

    count: int
    count_30: int
    count_90: int
    first_at: int
    last_at: int
    amounts: Float64


@dataclass(frozen=True, kw_only=True)
class GroupToken:
    """One group of a modality with its counts over the whole window.

    Attributes:
        modality: the modality's name.
        key: the declared ``group_by`` column.
        text_id: (16,) uint8, of the group's name.
        summary: its counts.
    """

    modality: str
    key: str
    text_id: UInt8
    summary: Summary


@dataclass(frozen=True, kw_only=True)
class ModalitySlice:
    """The visible part of one modality.

    Attributes:
        name: the modality's name.
        kind: ``events`` or ``tabular``.
        text_id: (N, 16) uint8, the newest ``max_events``, oldest first.
        event_at: (N,) int64 microseconds.
        num_visible: visible events, before the cap.
        summary: counts of all visible events; None without any.
    """

    name: str
    kind: str
    text_id: UInt8
    event_at: Int64
    num_visible: int
    summary: Summary | None


@dataclass(frozen=True, kw_only=True)
class UserSlice:
    """Everything an engine may know of a user at a cutoff.

    Attributes:
        user, user_key: as in :class:`UserHistory`.
        cutoff: microseconds since 1970 UTC.
        modalities: one for each of the profile's, in its order; empty ones included.
        groups: at most the profile's ``max_groups``, by descending weight.
        num_groups_visible: groups before that cap.
        num_events: visible events of event modalities, before caps.
        as_of: newest visible event's instant, microseconds; None without one.
        visible_digest: identity of what is visible; equal slices are equal prefixes.
    """

    user: bytes
    user_key: str
    cutoff: int
    modalities: tuple[ModalitySlice, ...]
    groups: tuple[GroupToken, ...]
    num_groups_visible: int
    num_events: int
    as_of: int | None
    visible_digest: str


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What of a user's history is visible at a cutoff; four bytes an event are held, however many sights a
    training set needs of one user.

    Attributes:
        history, profile, cutoff: as :func:`sight_at` was given them.
        places: of each of the profile's modalities, the visible events' positions in the history. Equal
            places of one history are the same events; the same events may stand at other places too.
    """

    history: UserHistory
    profile: Profile
    cutoff: int
    places: tuple[Places, ...]

    def events(self) -> dict[str, Events]:
        """The visible events by modality name, a copy each time."""
        return {
            modality.name: _events_of(self.history, modality).take(places)
            for modality, places in zip(self.profile.modalities, self.places, strict=True)
        }

    @cached_property
    def digest(self) -> str:
        """Identity of what is visible: equal ones are equal prefixes."""
        return _visible_digest(self.profile, self.events())


def sight_at(history: UserHistory, profile: Profile, cutoff: int) -> Sight:
    """What is visible at ``cutoff`` (microseconds since 1970 UTC)."""
    window = profile.window
    opened = None if window is None else cutoff - round(window.total_seconds() * 1_000_000)
    places = tuple(
        _visible(_events_of(history, modality), modality, cutoff, opened) for modality in profile.modalities
    )
    return Sight(history=history, profile=profile, cutoff=cutoff, places=places)


def slice_at(history: UserHistory, profile: Profile, cutoff: int) -> UserSlice:
    """The user as visible at ``cutoff`` (microseconds since 1970 UTC)."""
    return slice_of(sight_at(history, profile, cutoff))


def slice_of(sight: Sight) -> UserSlice:
    """The user as seen."""
    profile, visible = sight.profile, sight.events()
    events = [visible[modality.name] for modality in profile.event_modalities]
    newest = [int(one.event_at[-1]) for one in events if len(one)]
    as_of = max(newest) if newest else None
    groups = _ranked(
        [
            token
            for modality, places in zip(profile.modalities, sight.places, strict=True)
            if modality.kind == "events"
            for token in _groups(
                visible[modality.name], _events_of(sight.history, modality), places, modality, as_of or 0
            )
        ],
        as_of or 0,
    )
    budget = _event_budget(profile, visible, min(len(groups), profile.max_groups))
    return UserSlice(
        user=sight.history.user,
        user_key=sight.history.user_key,
        cutoff=sight.cutoff,
        modalities=tuple(
            _modality_slice(modality, visible[modality.name], as_of, budget[modality.name])
            for modality in profile.modalities
        ),
        groups=tuple(groups[: profile.max_groups]),
        num_groups_visible=len(groups),
        num_events=sum(len(one) for one in events),
        as_of=as_of,
        visible_digest=sight.digest,
    )


def _events_of(history: UserHistory, modality: Modality) -> Events:
    return history.events.get(modality.name) or Events.empty(len(modality.group_by), len(modality.amounts))


def _visible(events: Events, modality: Modality, cutoff: int, opened: int | None) -> Places:
    if modality.static:
        return np.arange(len(events), dtype=np.int32)[-1:]
    seen = (events.event_at <= cutoff) & (events.known_at <= cutoff)
    if modality.kind == "tabular":
        return np.flatnonzero(seen)[-1:].astype(np.int32)
    if opened is not None:
        seen &= events.event_at > opened
    return np.flatnonzero(seen).astype(np.int32)


def _event_budget(profile: Profile, visible: dict[str, Events], num_groups: int) -> dict[str, int]:
    """Events kept a modality: its cap, shrunk evenly where the prefix would pass max_tokens."""
    wanted = {m.name: min(m.max_events, len(visible[m.name])) for m in profile.modalities}
    room = max(0, profile.max_tokens - 1 - 3 * len(profile.modalities) - num_groups)
    total = sum(wanted.values())
    if total <= room:
        return wanted
    return {name: count * room // total for name, count in wanted.items()}


def _modality_slice(modality: Modality, events: Events, last_at: int | None, keep: int) -> ModalitySlice:
    kept = events.take(np.arange(len(events))[len(events) - keep :])
    measured_from = int(events.event_at[-1]) if last_at is None and len(events) else last_at or 0
    summary = _summary(events, np.arange(len(events)), measured_from) if len(events) else None
    return ModalitySlice(
        name=modality.name,
        kind=modality.kind,
        text_id=kept.text_id,
        event_at=kept.event_at,
        num_visible=len(events),
        summary=summary,
    )


def _groups(
    events: Events, history: Events, places: Places, modality: Modality, last_at: int
) -> Iterator[GroupToken]:
    """Groups of the ``events`` that stand at these places of the whole history."""
    for key, (codes, ids) in zip(modality.group_by, history.coded_groups, strict=True):
        codes = codes[places]
        named = np.flatnonzero(codes >= 0)
        if not len(named):
            continue
        rows = named[np.argsort(codes[named], kind="stable")]
        starts = np.flatnonzero(np.concatenate([[True], codes[rows][1:] != codes[rows][:-1]]))
        summaries = _summaries(events, rows, starts, last_at)
        for code, summary in zip(codes[rows[starts]], summaries, strict=True):
            yield GroupToken(modality=modality.name, key=key, text_id=ids[code], summary=summary)


def _summaries(events: Events, rows: np.ndarray, starts: np.ndarray, last_at: int) -> Iterator[Summary]:
    """:func:`_summary` of each run of ``rows`` that begins at one of ``starts``, all in one pass."""
    at = events.event_at[rows]
    age = last_at - at
    amounts_of = events.amounts[rows]
    columns = zip(
        np.diff(starts, append=len(rows)).tolist(),
        np.add.reduceat(age < 30 * MICROS_PER_DAY, starts, dtype=np.int64).tolist(),
        np.add.reduceat(age < 90 * MICROS_PER_DAY, starts, dtype=np.int64).tolist(),
        np.minimum.reduceat(at, starts).tolist(),
        np.maximum.reduceat(at, starts).tolist(),
        np.add.reduceat(np.where(np.isnan(amounts_of), 0.0, amounts_of), starts, axis=0),
        strict=True,
    )
    for count, count_30, count_90, first_at, newest_at, amounts in columns:
        yield Summary(
            count=count,
            count_30=count_30,
            count_90=count_90,
            first_at=first_at,
            last_at=newest_at,
            amounts=amounts,
        )


def _summary(events: Events, rows: np.ndarray, last_at: int) -> Summary:
    at = events.event_at[rows]
    age = last_at - at
    return Summary(
        count=len(rows),
        count_30=int((age < 30 * MICROS_PER_DAY).sum()),
        count_90=int((age < 90 * MICROS_PER_DAY).sum()),
        first_at=int(at.min()),
        last_at=int(at.max()),
        amounts=np.nansum(events.amounts[rows], axis=0),
    )


def _ranked(groups: list[GroupToken], last_at: int) -> list[GroupToken]:
    def weight(token: GroupToken) -> float:
        age_days = (last_at - token.summary.last_at) / MICROS_PER_DAY
        return token.summary.count / (1.0 + age_days / GROUP_HALF_LIFE_DAYS)

    return sorted(groups, key=lambda g: (-weight(g), g.modality, g.key, g.text_id.tobytes()))


def _visible_digest(profile: Profile, visible: dict[str, Events]) -> str:
    parts: list[object] = []
    for modality in profile.modalities:
        events = visible[modality.name]
        parts += [modality.name, len(events)]
        parts += [events.event_at.tobytes(), events.text_id.tobytes(), events.groups.tobytes()]
        parts.append(events.amounts.tobytes())
    return digest("visible", *parts)
