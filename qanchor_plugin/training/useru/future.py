"""D_future: the user's later behaviour as an answer, by rule (Query-as-Anchor §3.1).

The answer aggregates what follows the cutoff by time bin and action category. Actions are chosen
for frequency and diversity: each further action of one family (modality and coarsest group) weighs
half as much as the one before.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.sequence import Events, UserHistory
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from qanchor_plugin.training.useru.pairs import Pair
from qanchor_plugin.training.useru.plan import DEFAULT_BINS

DEFAULT_ACTIONS = 6
NOTHING = "nothing"
GENERATOR_ID = "future-rule-1"

Action = tuple[str, str, str]
"""(modality, family, name)."""


def future_query(bins: Sequence[int] = DEFAULT_BINS) -> str:
    """The one fixed query of D_future."""
    return f"What are this user's most likely actions in the next {bins[-1]} days?"


def future_pair(
    history: UserHistory,
    profile: Profile,
    cutoff: int,
    text_of: Mapping[bytes, str],
    *,
    known_until: int,
    bins: Sequence[int] = DEFAULT_BINS,
    max_actions: int = DEFAULT_ACTIONS,
    shard: int = 0,
) -> Pair | None:
    """The pair at ``cutoff``; None where the future is not wholly before ``known_until``.

    Args:
        history: everything stored of the user.
        cutoff: microseconds; events after it are the answer, none of them the input.
        text_of: text of every event and group id.
        known_until: pre-training may look at nothing from this instant on (microseconds).
        bins: days after the cutoff where time bins end, ascending.
        max_actions: most actions named in a bin.
        shard: number of the user's shard, for the pair.

    Raises:
        InputDataError: the bins do not ascend from above 0.
    """
    if not bins or list(bins) != sorted(set(bins)) or bins[0] <= 0:
        raise InputDataError(f"time bins are {list(bins)}; give ascending days above 0, such as (7, 30, 60).")
    if cutoff + bins[-1] * MICROS_PER_DAY >= known_until:
        return None
    counted = _counted(history, profile, cutoff, text_of, known_until, bins)
    chosen = [chosen_actions(counts, max_actions) for counts in counted]
    return Pair(
        user=history.user,
        user_key=history.user_key,
        cutoff=cutoff,
        kind="future",
        topic="",
        query=future_query(bins),
        answer=_worded(bins, chosen),
        generator=GENERATOR_ID,
        evidence={
            "bins": [
                {"to_day": day, "actions": [[name, count] for (_, _, name), count in actions]}
                for day, actions in zip(bins, chosen, strict=True)
            ]
        },
        shard=shard,
    )


def _counted(
    history: UserHistory,
    profile: Profile,
    cutoff: int,
    text_of: Mapping[bytes, str],
    known_until: int,
    bins: Sequence[int],
) -> list[Counter[Action]]:
    """How often each action falls into each bin after the cutoff."""
    counted = [Counter[Action]() for _ in bins]
    end = cutoff + bins[-1] * MICROS_PER_DAY
    for modality in profile.event_modalities:
        events = _between(history.events.get(modality.name), cutoff, end, known_until)
        for at, action in _actions(events, modality, text_of):
            counted[int(np.searchsorted(bins, (at - cutoff) / MICROS_PER_DAY))][action] += 1
    return counted


def chosen_actions(counts: Mapping[Action, int], most: int) -> list[tuple[Action, int]]:
    """At most ``most`` actions by count * 0.5 ** (actions of the same family already chosen).

    Ties fall to the action itself, in order: the choice is deterministic.
    """
    left = dict(counts)
    families: Counter[tuple[str, str]] = Counter()
    chosen: list[tuple[Action, int]] = []
    while left and len(chosen) < most:
        best = min(left, key=lambda action: (-left[action] * 0.5 ** families[action[:2]], action))
        families[best[:2]] += 1
        chosen.append((best, left.pop(best)))
    return chosen


def _between(events: Events | None, after: int, until: int, known_until: int) -> Events | None:
    """The events of an open and closed interval that were known before ``known_until``."""
    if events is None:
        return None
    within = (events.event_at > after) & (events.event_at <= until) & (events.known_at < known_until)
    return events.take(within)


def _actions(
    events: Events | None, modality: Modality, text_of: Mapping[bytes, str]
) -> Iterator[tuple[int, Action]]:
    """(instant, action) of every event: named by its first group, its family by its last."""
    if events is None:
        return
    num_groups = len(modality.group_by)
    for row, at in enumerate(events.event_at.tolist()):
        groups = events.groups[row]
        named = [groups[column].tobytes() for column in range(num_groups) if groups[column].any()]
        name = text_of[named[0]] if named else text_of[events.text_id[row].tobytes()]
        family = text_of[named[-1]] if len(named) > 1 else ""
        yield at, (modality.name, family, name)


def _worded(bins: Sequence[int], chosen: Sequence[Sequence[tuple[Action, int]]]) -> str:
    parts = []
    for first, last, actions in zip((0, *bins[:-1]), bins, chosen, strict=True):
        said = ", ".join(name if count == 1 else f"{name} {count} times" for (_, _, name), count in actions)
        parts.append(f"Days {first + 1} to {last}: {said or NOTHING}.")
    return " ".join(parts)
