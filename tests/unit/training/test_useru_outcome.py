"""Outcome pairs by hand: counts, scale, the same questions for a shard, no leak."""

from dataclasses import replace

import numpy as np
import pytest

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.training.useru import PairPlan
from qanchor_plugin.training.useru.actions import Action, actions_of, worded_answers, worded_query
from qanchor_plugin.training.useru.outcome import (
    Question,
    count_after,
    draw_questions,
    outcome_pairs,
    shard_events,
)
from tests.unit.training.useru_world import DAY, PROFILE, World

PURCHASES, SEARCHES = PROFILE.event_modalities
CUTOFF = 100 * DAY
PLAN = PairPlan(known_until=200 * DAY, questions_per_shard=20, rare_share=0.0)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def shard(world):
    """Two users; days 100 to 130 are the future of 30 days."""
    first = world.history(
        1,
        [
            (100, "lager", "BEER", "GROCERY"),  # at the cutoff: input
            (101, "lager", "BEER", "GROCERY"),
            (115, "food", "BABY FOODS", "BABY"),
            (130, "wipes", "BABY HBC", "BABY"),  # exactly 30 days after: still in
            (131, "ale", "BEER", "GROCERY"),  # in the 60 days only
        ],
        [(110, "beer near me")],
    )
    second = world.history(
        2, [(99, "ale", "BEER", "GROCERY")] + [(d, "nuts", "", "SNACKS") for d in (102, 103)]
    )
    return [first, second]


def ids(world, *texts):
    return frozenset(row.tobytes() for row in world.ids(list(texts)))


def counted(shard, action, days):
    events = shard_events(shard, PURCHASES if action.modality == "purchases" else SEARCHES)
    return count_after(events, action, CUTOFF, days, num_users=2).tolist()


def test_counts_by_hand(world, shard):
    beer = Action(modality="purchases", name="beer", values=ids(world, "BEER"))
    assert counted(shard, beer, 30) == [1, 0]
    assert counted(shard, beer, 60) == [2, 0]
    assert counted(shard, Action(modality="purchases", name=""), 30) == [3, 2]
    assert counted(shard, Action(modality="searches", name=""), 30) == [1, 0]
    snacks = Action(modality="purchases", name="snacks", values=ids(world, "SNACKS"))
    assert counted(shard, snacks, 30) == [0, 2]  # their category is null
    # one event is of a category and of a department that both read baby: it counts once
    baby = Action(modality="purchases", name="baby", values=ids(world, "BABY", "BABY FOODS", "BABY HBC"))
    assert counted(shard, baby, 30) == [2, 0]


def test_actions_are_values_and_words_that_several_share(world, shard):
    events = shard_events(shard, PURCHASES)
    by_key = [[events.values[place] for place in np.flatnonzero(row)] for row in events.keys_KV]
    actions = {one.name: one.values for one in actions_of(PURCHASES, by_key, world.text_of)}
    assert set(actions) == {"", "beer", "baby", "baby foods", "baby hbc", "grocery", "snacks"}
    assert actions["baby"] == ids(world, "BABY", "BABY FOODS", "BABY HBC")
    assert actions["baby hbc"] == ids(world, "BABY HBC")


def test_words_that_everything_shares_are_no_actions(world):
    values = ids(world, *(f"GOODS {letter}" for letter in "abcdefghijklm"))  # 13 values
    names = [one.name for one in actions_of(PURCHASES, [values], world.text_of)]
    assert "goods" not in names
    assert len(names) == 14


def test_wordings_name_modality_value_entity_and_days():
    beer = Action(modality="page_visits", name="beer")
    assert worded_query(beer, 0, entity="household", days=30) == (
        "Will this household have page visits of beer in the next 30 days?"
    )
    assert worded_query(beer, 5, entity="household", days=30) == "beer"
    assert worded_query(Action(modality="page_visits", name=""), 2, entity="user", days=30) == (
        "Will this user stop having page visits?"
    )
    assert worded_answers(beer) == (
        "no page visits of beer",
        "page visits of beer once",
        "page visits of beer two to four times",
        "page visits of beer five times or more",
    )


@pytest.mark.parametrize(("count", "answer"), [(0, 0), (1, 1), (2, 2), (4, 2), (5, 3), (9, 3)])
def test_counts_fall_into_four_answers(world, count, answer):
    user = world.history(1, [(101 + n, "ale", "BEER", "") for n in range(count)] + [(99, "ale", "BEER", "")])
    other = world.history(2, [(101, "ale", "BEER", "")])
    pairs = outcome_pairs([user, other], PROFILE, world.text_of, PLAN, shard=0, asked_at={CUTOFF: [0]})
    about_beer = [pair for pair in pairs if pair.topic == "purchases of beer"]
    assert about_beer
    for pair in about_beer:
        assert pair.alternatives.index(pair.answer) == answer
        assert pair.evidence["count"] == count


def test_all_users_of_a_shard_are_asked_the_same_and_builds_agree(world, shard):
    asked_at = {50 * DAY: [0, 1], CUTOFF: [0, 1]}
    pairs, again = (
        list(outcome_pairs(shard, PROFILE, world.text_of, PLAN, shard=3, asked_at=asked_at)) for _ in range(2)
    )
    assert pairs == again
    by_user = [[(p.cutoff, p.query) for p in pairs if p.user == one.user] for one in shard]
    assert by_user[0] == by_user[1]
    assert {pair.shard for pair in pairs} == {3}
    others = list(outcome_pairs(shard, PROFILE, world.text_of, PLAN, shard=4, asked_at=asked_at))
    assert [pair.query for pair in others] != [pair.query for pair in pairs]


def test_a_horizon_that_does_not_fit_is_not_asked_unless_its_wording_leaves_it_open():
    beer = Action(modality="purchases", name="beer")
    named, bare = Question(action=beer, wording=0, days=90), Question(action=beer, wording=5, days=90)
    assert (named.days_at(109 * DAY, PLAN), bare.days_at(109 * DAY, PLAN)) == (90, 90)
    assert (named.days_at(110 * DAY, PLAN), bare.days_at(110 * DAY, PLAN)) == (None, 60)  # day 200 is unknown
    assert (named.days_at(170 * DAY, PLAN), bare.days_at(170 * DAY, PLAN)) == (None, None)


def test_questions_are_drawn_by_the_root_of_what_occurs(world):
    """16 purchases of tea and 1 of ale: tea is drawn first four times as often."""
    users = [
        world.history(user, [(101 + n / 10, "x", "TEA", "") for n in range(16)] + [(101, "x", "ALE", "")])
        for user in (1, 2)
    ]
    events = [shard_events(users, modality) for modality in PROFILE.event_modalities]
    plan = replace(PLAN, questions_per_shard=2)  # one about any event, one about a value
    drawn = []
    for number in range(400):
        questions = draw_questions(events, world.text_of, plan, shard=number, asked_at={CUTOFF: [0, 1]})
        assert questions[0].action.name == ""
        drawn.append(questions[1].action.name)
    assert abs(drawn.count("tea") - 320) < 5 * (400 * 0.8 * 0.2) ** 0.5
    rare = replace(plan, rare_share=1.5)  # two of ale over two users and one cutoff are too few
    for number in range(9):
        names = [
            one.action.name
            for one in draw_questions(events, world.text_of, rare, shard=number, asked_at={CUTOFF: [0, 1]})
        ]
        assert names == ["", "tea"]


def test_users_without_a_future_and_shards_without_events_do_not_break(world):
    silent = world.history(5, [(99, "ale", "BEER", "")])
    assert not list(
        outcome_pairs([silent], PROFILE, world.text_of, PLAN, shard=0, asked_at={CUTOFF: [0]})
    )  # nothing occurs: nothing is asked
    assert not list(outcome_pairs([], PROFILE, world.text_of, PLAN, shard=0, asked_at={}))


def test_bad_horizons_are_named():
    with pytest.raises(InputDataError, match=r"\[60, 30\]"):
        PairPlan(known_until=0, horizons=(60, 30))
