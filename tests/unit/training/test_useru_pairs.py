"""UserU pairs by hand: the future by rule, grounded answers, reflection, no leak."""

import json
from dataclasses import replace

import numpy as np
import pytest

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.sequence import slice_at
from qanchor_plugin.training.useru import (
    TOPICS,
    Claim,
    Draft,
    GroundedGenerator,
    PairCounts,
    PairPlan,
    build_pairs,
    future_pair,
    pairs_table,
    reflect,
)
from qanchor_plugin.training.useru.build import keyword_relevance
from qanchor_plugin.training.useru.claims import worded
from qanchor_plugin.training.useru.evidence import evidence_of
from qanchor_plugin.training.useru.future import chosen_actions
from qanchor_plugin.training.useru.plan import is_held_out, shard_cutoffs, shard_of
from qanchor_plugin.training.useru.sample_page import sample_page
from qanchor_plugin.training.useru.topics import TOPIC_OF_NAME, is_about
from tests.unit.training.useru_world import DAY, PROFILE, World


@pytest.fixture
def world() -> World:
    return World()


def test_future_is_aggregated_by_bin_and_category(world):
    history = world.history(
        1,
        [
            (10, "lager", "BEER", "GROCERY"),  # at the cutoff: input, not answer
            (11, "lager", "BEER", "GROCERY"),
            (12, "ale", "BEER", "GROCERY"),
            (17, "brie", "CHEESE", "DELI"),  # exactly 7 days after: still the first bin
            (17.5, "gouda", "CHEESE", "DELI"),
            (71, "late", "LATE", "GROCERY"),  # beyond the horizon
        ],
        [(12, "pizza near me")],
    )
    pair = future_pair(history, PROFILE, 10 * DAY, world.text_of, known_until=80 * DAY)
    assert pair.query == "What are this user's most likely actions in the next 60 days?"
    assert pair.answer == (
        "Days 1 to 7: BEER 2 times, CHEESE, pizza near me. Days 8 to 30: CHEESE. Days 31 to 60: nothing."
    )
    assert pair.evidence["bins"][0]["actions"] == [["BEER", 2], ["CHEESE", 1], ["pizza near me", 1]]


def test_future_needs_its_whole_horizon_before_what_may_be_known(world):
    history = world.history(1, [(1, "lager", "BEER", "GROCERY")])
    assert future_pair(history, PROFILE, 10 * DAY, world.text_of, known_until=70 * DAY) is None
    assert future_pair(history, PROFILE, 10 * DAY - 1, world.text_of, known_until=70 * DAY) is not None


def test_actions_are_chosen_for_frequency_and_diversity():
    counts = {("p", "A", "a1"): 8, ("p", "A", "a2"): 6, ("p", "A", "a3"): 5, ("p", "B", "b1"): 2}
    # a1 (8); a2 halved is 3, b1 is 2: a2; a3 quartered is 1.25: b1 before it
    assert [name for (_, _, name), _ in chosen_actions(counts, 3)] == ["a1", "a2", "b1"]
    assert chosen_actions({("p", "A", "y"): 1, ("p", "A", "x"): 1}, 1) == [(("p", "A", "x"), 1)]


def test_bad_bins_are_named(world):
    history = world.history(1, [(1, "lager", "BEER", "GROCERY")])
    with pytest.raises(InputDataError, match=r"\[30, 7\]"):
        future_pair(history, PROFILE, 0, world.text_of, known_until=99 * DAY, bins=(30, 7))


def shopper(world: World):
    history = world.history(
        1,
        [(day, "lager", "BEERS/ALES", "GROCERY") for day in (1, 50, 80, 99)]
        + [(60, "bone", "DOG FOODS", "")],
        [(98, "cheap beer"), (99, "cheap beer")],
    )
    return evidence_of(slice_at(history, PROFILE, 100 * DAY), world.text_of)


def test_evidence_holds_groups_and_ungrouped_texts(world):
    evidence = shopper(world)
    beer = evidence.about("  beers/ales ")
    assert (beer.count, beer.count_30, beer.count_90, beer.days_ago) == (4, 2, 3, 0)
    assert evidence.about("DOG FOODS").days_ago == 39
    assert evidence.about("cheap beer").count == 2
    assert evidence.about("lager") is None  # said by its group
    assert evidence.texts == ("30-39",)
    assert evidence.complete


def test_reflection_corrects_drops_and_keeps(world):
    evidence = shopper(world)
    reflection = reflect(
        [
            Claim(kind="count", about="beers/ales", value=9, sentence="Bought Beers/Ales 9 times."),
            Claim(kind="days_ago", about="DOG FOODS", value=39),
            Claim(kind="count", about="HOT DOGS", value=1),  # not in the profile
            Claim(kind="wealth", about="DOG FOODS", value=1),  # no such kind
            Claim(kind="none", about="coffee and tea"),
            Claim(kind="none", about="beer"),  # the profile shows beer
            Claim(kind="count", about="BEERS/ALES", value=4),  # said already
        ],
        evidence,
    )
    assert (reflection.num_checked, reflection.num_corrected, reflection.num_dropped) == (7, 1, 4)
    assert reflection.answer == (
        "BEERS/ALES: 4 times in all. DOG FOODS: last seen 39 days before the latest activity. "
        "The profile shows nothing about coffee and tea."
    )


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("The user bought Dog Foods 3 times in the last 30 days.", True),
        ("The user bought DOG FOODS 3 times in the last 90 days.", False),  # another period
        ("The user bought DOG FOODS 3 times.", False),  # no period
        ("The wealthy user bought DOG FOODS 3 times in the last 30 days.", False),  # says more
        ("The user bought DOG FOODS 3 times, 2 of them in the last 30 days.", False),  # another number
    ],
)
def test_a_sentence_is_kept_only_when_it_says_the_claim_and_no_more(sentence, kept):
    claim = Claim(kind="count_30", about="DOG FOODS", value=3, sentence=sentence)
    assert (worded(claim) == sentence) is kept
    assert kept or worded(claim) == "DOG FOODS: 3 times in the last 30 days."


def test_absence_is_claimed_only_of_a_complete_profile(world):
    evidence = shopper(world)
    capped = type(evidence)(**{**vars(evidence), "complete": False})
    assert reflect([Claim(kind="none", about="coffee and tea")], capped).claims == ()


def test_topics_are_72_and_words_match_whole():
    assert len(TOPICS) == len(TOPIC_OF_NAME) == 72
    assert is_about(TOPIC_OF_NAME["beer"], "BEERS/ALES")
    assert is_about(TOPIC_OF_NAME["pets"], "DOG FOODS")
    assert not is_about(TOPIC_OF_NAME["pets"], "carpets and hotdogs")


def test_relevance_ranks_what_the_user_does(world):
    scores = dict(zip([t.name for t in TOPICS], keyword_relevance(TOPICS, shopper(world)), strict=True))
    # log1p(4) + log1p(2) of the group and twice log1p(2) of the search
    assert scores["beer"] == pytest.approx(np.log(5) + 3 * np.log(3))
    assert scores["pets"] == pytest.approx(np.log(2))
    assert scores["music"] == 0.0


def users(world: World, num_users: int = 3):
    return [
        world.history(
            user,
            [(day + user / 10, "lager", "BEER", "GROCERY") for day in range(1, 200, 9)]
            + [(day, "bone", "DOG FOODS", "PET") for day in range(5, 200, 40)],
        )
        for user in range(1, num_users + 1)
    ]


PLAN = PairPlan(known_until=200 * DAY, num_cutoffs=3, num_topics=4, num_absent=1, bins=(7, 30))


def test_pairs_of_users_with_counts(world):
    counts = PairCounts()
    pairs = list(build_pairs(users(world), PROFILE, world.text_of, PLAN, GroundedGenerator(), counts=counts))
    assert counts.num_users == 3
    assert counts.num_outcome == sum(pair.kind == "outcome" for pair in pairs) > 0
    assert counts.num_pairs == len(pairs)
    assert counts.num_future == sum(pair.kind == "future" for pair in pairs) == 9
    assert counts.num_uqa == counts.num_asked == sum(pair.kind == "uqa" for pair in pairs)
    assert (counts.yield_share, counts.corrected_share, counts.dropped_share) == (1.0, 0.0, 0.0)
    assert any("nothing about" in pair.answer for pair in pairs)
    assert {pair.topic for pair in pairs} >= {"beer", "pets"}
    again = list(build_pairs(users(world), PROFILE, world.text_of, PLAN, GroundedGenerator()))
    assert again == pairs
    table = pairs_table(pairs)
    assert table.num_rows == len(pairs)
    assert table["cutoff"].cast("int64").to_pylist() == [pair.cutoff for pair in pairs]
    assert table["held_out"].to_pylist() == [is_held_out(pair.user) for pair in pairs]
    assert all((pair.answer in pair.alternatives) == (pair.kind == "outcome") for pair in pairs)
    facts = [json.loads(one) for one in table["evidence"].to_pylist() if "facts" in one]
    assert len(facts) == counts.num_uqa
    assert all(len(one["facts"]) == one["num_facts"] for one in facts)


def test_pairs_read_nothing_from_known_until_on(world):
    plan = PairPlan(known_until=100 * DAY, num_cutoffs=3, num_topics=4, bins=(7, 30))
    whole = users(world)
    cut = [
        type(one)(
            user=one.user,
            user_key=one.user_key,
            events={name: e.take(e.event_at < 100 * DAY) for name, e in one.events.items()},
        )
        for one in whole
    ]
    made = [list(build_pairs(one, PROFILE, world.text_of, plan, GroundedGenerator())) for one in (whole, cut)]
    assert made[0] == made[1]
    assert made[0]
    assert {pair.kind for pair in made[0]} == {"future", "uqa", "outcome"}
    assert all(pair.cutoff + 30 * DAY < 100 * DAY for pair in made[0])


def test_what_became_known_too_late_is_not_read(world):
    plan = PairPlan(known_until=100 * DAY, num_cutoffs=3, num_topics=4)
    late = [
        type(one)(
            user=one.user,
            user_key=one.user_key,
            events={
                name: replace(e, known_at=e.known_at + 200 * DAY * (e.event_at > 40 * DAY))
                for name, e in one.events.items()
            },
        )
        for one in users(world)
    ]
    cut = [
        type(one)(
            user=one.user,
            user_key=one.user_key,
            events={name: e.take(e.event_at <= 40 * DAY) for name, e in one.events.items()},
        )
        for one in users(world)
    ]
    made = [list(build_pairs(one, PROFILE, world.text_of, plan, GroundedGenerator())) for one in (late, cut)]
    assert made[0] == made[1]
    assert made[0]


def test_cutoffs_are_the_shards_own_one_in_each_part(world):
    cutoffs = shard_cutoffs(users(world), PROFILE, PLAN, shard=0)
    # the first event is on day 1.1; 30 days of warm-up; 30 days before day 200 is the last instant
    edges = np.linspace(31.1, 170, 4)
    assert [
        bool(low <= one / DAY <= high) for low, one, high in zip(edges, cutoffs, edges[1:], strict=False)
    ] == [True] * 3
    assert shard_cutoffs(users(world), PROFILE, PLAN, shard=1) != cutoffs
    late = [world.history(2, [(190, "x", "X", "")])]
    assert shard_cutoffs(late, PROFILE, PLAN, shard=0) == []


def test_one_odd_early_event_moves_no_cutoff(world):
    odd = [*users(world, 6), world.history(9, [(-9000, "x", "X", "")])]
    assert min(shard_cutoffs(odd, PROFILE, PLAN, shard=0)) > 31 * DAY


def test_shards_and_held_out_users_are_even_and_fixed():
    keys = [number.to_bytes(8, "little") for number in range(4000)]
    shards = np.bincount([shard_of(key, seed=3, num_shards=8) for key in keys])
    assert len(shards) == 8
    assert abs(shards - 500).max() < 5 * 500**0.5
    assert shard_of(b"user", seed=0, num_shards=1000) == 0xDB9A6163 % 1000
    assert abs(sum(map(is_held_out, keys)) - 200) < 5 * 200**0.5


class LyingGenerator:
    """Claims one true thing, one wrong number and one invention, or nothing usable."""

    generator_id = "lying"

    def generate(self, requests):
        drafts = []
        for request in requests:
            fact = request.evidence.facts[0]
            claims = (
                Claim(kind="count", about=fact.about, value=fact.count),
                Claim(kind="count_90", about=fact.about, value=fact.count_90 + 1),
                Claim(kind="count", about="A YACHT", value=1),
            )
            pets = request.topic.name == "pets"
            drafts.append(None if pets else Draft(query="Really?", claims=claims))
        return drafts


def test_a_lying_generator_is_corrected_and_counted(world):
    counts = PairCounts()
    pairs = list(build_pairs(users(world), PROFILE, world.text_of, PLAN, LyingGenerator(), counts=counts))
    assert counts.num_unusable > 0
    assert counts.num_claims == 3 * counts.num_uqa
    assert counts.corrected_share == counts.dropped_share == pytest.approx(1 / 3)
    assert counts.yield_share == pytest.approx(1 - counts.num_unusable / counts.num_asked)
    assert not any("YACHT" in pair.answer for pair in pairs)


def test_a_bad_plan_is_refused():
    with pytest.raises(InputDataError, match="num_absent 0 to num_topics"):
        PairPlan(known_until=0, num_topics=1, num_absent=2)


def test_the_sample_page_shows_pairs_beside_evidence_and_escapes_them(world):
    counts = PairCounts()
    histories = [world.history(1, [(day, "x", "<b>BEER</b>", "GROCERY") for day in range(1, 150, 5)])]
    pairs = list(build_pairs(histories, PROFILE, world.text_of, PLAN, GroundedGenerator(), counts=counts))
    page = sample_page(pairs, counts)
    assert page.count("<tr>") == 1 + len(pairs)
    assert "<b>" not in page
    assert "&lt;b&gt;BEER&lt;/b&gt; × " in page
    assert f"{counts.num_uqa} of {counts.num_asked} drafts became pairs (100.0%)" in page
