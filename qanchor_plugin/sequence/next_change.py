"""When what is visible of a user changes next, though nothing new is heard of them."""

import numpy as np

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.sequence.history import Events, Int64, UserHistory

NEVER = 9_214_646_400_000_000
"""2262-01-01, in microseconds since 1970 UTC: nothing known of the user will change by itself. Later instants
do not fit the nanoseconds in which some readers hold them."""


def next_change(history: UserHistory, profile: Profile, cutoff: int) -> int:
    """The first instant after ``cutoff`` at which :func:`slice_at` sees other events; ``NEVER`` if none.

    An event leaves when the window has passed over it, and enters when its instant, and that at which we
    could first have known it, have come. Microseconds since 1970 UTC.
    """
    window = None if profile.window is None else round(profile.window.total_seconds() * 1_000_000)
    instants = [
        _instants(history.events[modality.name], modality, cutoff, window)
        for modality in profile.modalities
        if modality.name in history.events and not modality.static
    ]
    return min(NEVER, *(int(found.min()) for found in instants if len(found)), NEVER)


def _instants(events: Events, modality: Modality, cutoff: int, window: int | None) -> Int64:
    """Every instant after the cutoff at which an event of the modality enters or leaves."""
    enters = np.maximum(events.event_at, events.known_at)
    if modality.kind == "tabular":
        seen = np.flatnonzero(enters <= cutoff)
        later = enters[seen[-1] + 1 :] if len(seen) else enters  # an older row is never the latest again
        return later[later > cutoff]
    if window is None:
        return enters[enters > cutoff]
    leaves = events.event_at + window
    passing = enters < leaves  # known too late, it is never seen
    found = np.concatenate([enters[passing], leaves[passing]])
    return found[found > cutoff]
