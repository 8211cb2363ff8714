"""Pushed events beside those of the batch: each is counted once (docs/decisions/0009)."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.sequence.fold import concatenated
from qanchor_plugin.sequence.history import Events, Float64, UserHistory


@dataclass(frozen=True, kw_only=True, slots=True)
class PushedEvent:
    """One event as it was pushed, rendered as the batch renders it.

    Attributes:
        modality_digest: which sequence it belongs to.
        user, user_key: as in :class:`UserHistory`.
        push: the push that brought it; ``row`` is its own name, for ever unique.
        pushed_at: when, microseconds of the wall's time.
        event_at, known_at: microseconds since 1970 UTC.
        text_id: 16 bytes; ``groups``: 16 bytes a declared group key.
        amounts: NaN where null.
    """

    modality_digest: str
    user: bytes
    user_key: str
    push: str
    row: str
    pushed_at: int
    event_at: int
    known_at: int
    text_id: bytes
    groups: bytes
    amounts: tuple[float, ...]


def with_pushed(
    histories: Mapping[bytes, UserHistory], pushed: Mapping[bytes, Sequence[PushedEvent]], profile: Profile
) -> dict[bytes, UserHistory]:
    """The histories, with the pushed events that the batch has not brought; users known by a push alone
    are there too.

    An event's identity is modality, user, ``event_at``, text, groups and amounts. It is counted as often as
    the batch has it or as one push has it, whichever is more: the batch catching up changes nothing, and
    neither does a push that is sent again.
    """
    found = dict(histories)
    for user, events in pushed.items():
        known = found.get(user) or UserHistory(user=user, user_key=events[0].user_key, events={})
        found[user] = _merged(known, events, profile)
    return {user: one for user, one in found.items() if one.events}


def waiting(stored: Events, pushed: Iterable[PushedEvent]) -> list[PushedEvent]:
    """The pushed events of one user and modality that ``stored`` lacks, in order of arrival.

    Of an event that a push names more often than the batch has it, the copies missing there.
    """
    events = sorted(pushed, key=lambda event: (event.push, event.row))
    have = _counted(stored, {one.event_at for one in events})
    by_identity: dict[Hashable, dict[str, list[PushedEvent]]] = {}
    for one in events:
        by_identity.setdefault(_identity(one), {}).setdefault(one.push, []).append(one)
    missing = []
    for identity, pushes in by_identity.items():
        copies = max(pushes.values(), key=len)
        missing += copies[have[identity] :]
    return missing


def _merged(known: UserHistory, pushed: Sequence[PushedEvent], profile: Profile) -> UserHistory:
    events = dict(known.events)
    for modality in profile.modalities:
        own = [one for one in pushed if one.modality_digest == modality.sequence_digest]
        if not own:
            continue
        stored = events.get(modality.name, Events.empty(len(modality.group_by), len(modality.amounts)))
        missing = waiting(stored, own)
        if missing:
            events[modality.name] = concatenated([stored, _as_events(missing, modality)])
    return replace(known, events=events)


def _as_events(pushed: Sequence[PushedEvent], modality: Modality) -> Events:
    shape = (len(pushed), len(modality.group_by), TEXT_ID_BYTES)
    return Events(
        event_at=np.array([one.event_at for one in pushed], np.int64),
        known_at=np.array([one.known_at for one in pushed], np.int64),
        text_id=np.frombuffer(b"".join(one.text_id for one in pushed), np.uint8).reshape(-1, TEXT_ID_BYTES),
        groups=np.frombuffer(b"".join(one.groups for one in pushed), np.uint8).reshape(shape),
        amounts=np.array([one.amounts for one in pushed], np.float64).reshape(len(pushed), -1),
    )


def _identity(one: PushedEvent) -> Hashable:
    return one.event_at, one.text_id, one.groups, _comparable(np.array(one.amounts, np.float64))


def _counted(stored: Events, instants: set[int]) -> Counter[Hashable]:
    """How often each identity stands in ``stored``, among events at ``instants``."""
    rows = np.flatnonzero(np.isin(stored.event_at, np.array(sorted(instants), np.int64)))
    return Counter(
        (
            int(stored.event_at[row]),
            stored.text_id[row].tobytes(),
            stored.groups[row].tobytes(),
            _comparable(stored.amounts[row]),
        )
        for row in rows
    )


def _comparable(amounts: Float64) -> bytes:
    """Bytes that are equal where the numbers are: one NaN, one zero."""
    return np.where(np.isnan(amounts), np.nan, amounts + 0.0).tobytes()
