"""Outcome pairs: how often one action follows a cutoff, as one of four answers. By rule, no LLM.

Every user of a shard is asked the same questions, so that many answers to one question stand in a
batch. Shape letters: N events of the shard, U users, K group keys, V group values, Q questions.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.sequence import UserHistory
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from qanchor_plugin.training.useru.actions import (
    LEAST_COUNTS,
    Action,
    actions_of,
    names_days,
    num_wordings,
    worded_answers,
    worded_query,
)
from qanchor_plugin.training.useru.pairs import Pair
from qanchor_plugin.training.useru.plan import PairPlan

GENERATOR_ID = "outcome-rule-1"
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question that a shard is asked.

    Attributes:
        action: what it is about.
        wording: which of the action's wordings.
        days: horizon; a wording that does not name it is asked over a shorter one where that alone fits.
    """

    action: Action
    wording: int
    days: int

    def days_at(self, cutoff: int, plan: PairPlan) -> int | None:
        """The horizon at a cutoff; None where none fits before ``known_until``."""
        fitting = [days for days in plan.horizons if days <= self.days and plan.fits(cutoff, days)]
        if not fitting or (names_days(self.action, self.wording) and fitting[-1] != self.days):
            return None
        return fitting[-1]


@dataclass(frozen=True, kw_only=True)
class ShardEvents:
    """The events of one modality of every user of a shard, users in order.

    Attributes:
        modality: the modality.
        user_N: (N,) number of the user within the shard, ascending.
        event_at_N: (N,) microseconds.
        value_NK: (N, K) place in ``values``; 0 where the key is null.
        values: distinct text ids of group values; place 0 stands for null.
        keys_KV: (K, V) whether a value occurs under a key.
    """

    modality: Modality
    user_N: Int64
    event_at_N: Int64
    value_NK: Int64
    values: tuple[bytes, ...]
    keys_KV: npt.NDArray[np.bool_]


def outcome_pairs(
    histories: Sequence[UserHistory],
    profile: Profile,
    text_of: Mapping[bytes, str],
    plan: PairPlan,
    *,
    shard: int,
    asked_at: Mapping[int, Collection[int]],
) -> Iterator[Pair]:
    """The pairs of a shard, by cutoff, question and user.

    Args:
        histories: the shard's users, nothing in them at or after ``plan.known_until``.
        profile: its event modalities are asked about.
        text_of: text of every group id.
        plan: horizons, number of questions and seed.
        shard: its number.
        asked_at: by cutoff, places in ``histories`` of the users that are asked there.
    """
    events = [shard_events(histories, modality) for modality in profile.event_modalities]
    questions = draw_questions(events, text_of, plan, shard=shard, asked_at=asked_at)
    entity = profile.entities[0].name.replace("_", " ")
    for cutoff in sorted(asked_at):
        users = sorted(asked_at[cutoff])
        for question in questions:
            days = question.days_at(cutoff, plan)
            if days is None:
                continue
            own = next(one for one in events if one.modality.name == question.action.modality)
            count_U = count_after(own, question.action, cutoff, days, num_users=len(histories))
            yield from _pairs(histories, users, question, count_U, cutoff, days, entity, shard)


def shard_events(histories: Sequence[UserHistory], modality: Modality) -> ShardEvents:
    """One modality of the shard as flat arrays."""
    num_keys = len(modality.group_by)
    parts = [(number, history.events.get(modality.name)) for number, history in enumerate(histories)]
    held = [(number, events) for number, events in parts if events is not None and len(events)]
    user_N = np.repeat(np.array([n for n, _ in held], np.int64), [len(events) for _, events in held])
    event_at_N = np.concatenate([np.zeros(0, np.int64), *(events.event_at for _, events in held)])
    groups = [events.groups[:, :num_keys].reshape(-1, TEXT_ID_BYTES) for _, events in held]
    flat = np.ascontiguousarray(np.concatenate([np.zeros((1, TEXT_ID_BYTES), np.uint8), *groups]))
    found, place = np.unique(flat.view(f"V{TEXT_ID_BYTES}").ravel(), return_inverse=True)
    value_NK = np.asarray(place[1:], np.int64).reshape(len(event_at_N), num_keys)
    keys_KV = np.zeros((num_keys, len(found)), np.bool_)
    for key in range(num_keys):
        keys_KV[key, value_NK[:, key]] = True
    keys_KV[:, 0] = False  # null sorts first: all its bytes are zero
    return ShardEvents(
        modality=modality,
        user_N=user_N,
        event_at_N=event_at_N,
        value_NK=value_NK,
        values=tuple(one.tobytes() for one in found),
        keys_KV=keys_KV,
    )


def count_after(
    events: ShardEvents, action: Action, cutoff: int, days: int, *, num_users: int
) -> npt.NDArray[np.int64]:
    """(U,) events of the action with ``cutoff < event_at <= cutoff + days``."""
    at = events.event_at_N
    counted_N = (at > cutoff) & (at <= cutoff + days * MICROS_PER_DAY)
    if action.name:
        counted_N &= _member_V(events, action)[events.value_NK].any(axis=1)
    return np.bincount(events.user_N[counted_N], minlength=num_users)


def draw_questions(
    events: Sequence[ShardEvents],
    text_of: Mapping[bytes, str],
    plan: PairPlan,
    *,
    shard: int,
    asked_at: Mapping[int, Collection[int]],
) -> list[Question]:
    """The questions of a shard: actions by the square root of how often they occur in its futures.

    One in ten (rounded up) is about any event of a modality. Actions that occur less than once in
    ``1 / plan.rare_share`` users and cutoffs are not asked about.
    """
    rng = np.random.default_rng([plan.seed, shard, 1])
    whole: list[Action] = []
    named: list[Action] = []
    weights: dict[Action, float] = {}
    cutoffs = sorted(asked_at)
    least = max(1.0, plan.rare_share * sum(map(len, asked_at.values())))
    for one in events:
        occurrences_V, num_events = _occurrences(one, cutoffs, plan)
        by_key = [[one.values[place] for place in np.flatnonzero(row)] for row in one.keys_KV]
        place_of = {value: place for place, value in enumerate(one.values)}
        for action in actions_of(one.modality, by_key, text_of):
            places = [place_of[value] for value in action.values]
            often = float(occurrences_V[places].sum()) if action.name else num_events
            if often >= least:
                weights[action] = often**0.5
                (named if action.name else whole).append(action)
    num_whole = -(-plan.questions_per_shard // 10) if whole else 0
    drawn = _drawn(whole, weights, num_whole, rng, again=True)
    drawn += _drawn(named, weights, plan.questions_per_shard - num_whole, rng, again=False)
    return list(dict.fromkeys(_question(action, cutoffs, plan, rng) for action in drawn))


def _drawn(
    actions: Sequence[Action],
    weights: Mapping[Action, float],
    most: int,
    rng: np.random.Generator,
    *,
    again: bool,
) -> list[Action]:
    if not actions or not most:
        return []
    share = np.array([weights[action] for action in actions])
    size = most if again else min(most, len(actions))
    places = rng.choice(len(actions), size, replace=again, p=share / share.sum())
    return [actions[place] for place in places]


def _question(action: Action, cutoffs: Sequence[int], plan: PairPlan, rng: np.random.Generator) -> Question:
    """A wording by chance, and a horizon: the more cutoffs it fits, the likelier."""
    fits = np.array([sum(plan.fits(cutoff, days) for cutoff in cutoffs) for days in plan.horizons], float)
    days = plan.horizons[int(rng.choice(len(fits), p=fits / fits.sum()))]
    return Question(action=action, wording=int(rng.integers(num_wordings(action))), days=days)


def _occurrences(
    events: ShardEvents, cutoffs: Sequence[int], plan: PairPlan
) -> tuple[npt.NDArray[np.float64], float]:
    """(V,) events of each value in the futures of all cutoffs, and events at all."""
    occurrences_V, num_events = np.zeros(len(events.values)), 0.0
    for cutoff in cutoffs:
        days = max((one for one in plan.horizons if plan.fits(cutoff, one)), default=0)
        at = events.event_at_N
        later_N = (at > cutoff) & (at <= cutoff + days * MICROS_PER_DAY)
        num_events += float(later_N.sum())
        occurrences_V += np.bincount(events.value_NK[later_N].ravel(), minlength=len(events.values))
    occurrences_V[0] = 0.0
    return occurrences_V, num_events


def _member_V(events: ShardEvents, action: Action) -> npt.NDArray[np.bool_]:
    return np.array([value in action.values for value in events.values], np.bool_)


def _pairs(
    histories: Sequence[UserHistory],
    users: Sequence[int],
    question: Question,
    count_U: npt.NDArray[np.int64],
    cutoff: int,
    days: int,
    entity: str,
    shard: int,
) -> Iterator[Pair]:
    answers = worded_answers(question.action)
    query = worded_query(question.action, question.wording, entity=entity, days=days)
    answer_U = np.searchsorted(LEAST_COUNTS, count_U, side="right") - 1
    for user in users:
        yield Pair(
            user=histories[user].user,
            user_key=histories[user].user_key,
            cutoff=cutoff,
            kind="outcome",
            topic=question.action.phrase,
            query=query,
            answer=answers[answer_U[user]],
            generator=GENERATOR_ID,
            evidence={"count": int(count_U[user]), "days": days},
            alternatives=answers,
            shard=shard,
        )
