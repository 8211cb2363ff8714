"""What lies after the cutoff, was learnt after it, or is another user's changes no byte of an embedding."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence import Events, UserHistory, UserSlice, slice_at
from tests.unit.engine.conftest import DAY, GROUPS, TEXTS, TODAY, RandomVectors

WINDOW_DAYS = 30
OPENED = TODAY - WINDOW_DAYS * DAY
SOURCE = SourceSpec(name="s", path="raw/s", event_at="t")
JOURNEY = Profile(
    "journey",
    EntityRef(name="user", join_key="user_id", value_type="INT64"),
    [
        Modality("purchases", SOURCE, "{a}", group_by=("g",), amounts=("price",), max_events=4),
        Modality("card", SOURCE, "{c}", kind="tabular"),
    ],
    window=timedelta(days=WINDOW_DAYS),
)
QUERIES = ("Will this household redeem a coupon?", "beer?")

Row = tuple[int, int, int]
"""event_at and known_at (microseconds), and the number of a text."""


def events(rows: list[Row], num_groups: int = 1, num_amounts: int = 1) -> Events:
    texts = [text_id(TEXTS[number]) for *_, number in rows]
    groups = [text_id(GROUPS[number % len(GROUPS)]) for *_, number in rows] * num_groups
    return Events(
        event_at=np.array([row[0] for row in rows], np.int64),
        known_at=np.array([row[1] for row in rows], np.int64),
        text_id=np.frombuffer(b"".join(texts), np.uint8).reshape(-1, 16),
        groups=np.frombuffer(b"".join(groups), np.uint8).reshape(len(rows), num_groups, 16),
        amounts=np.array([[float(row[2])] * num_amounts for row in rows]).reshape(len(rows), num_amounts),
    ).sorted()


def seen(purchases: list[Row], cards: list[Row] = (), *, name: bytes = b"u", at: int = TODAY) -> UserSlice:
    found = {"purchases": events(purchases), "card": events(list(cards), 0, 0)}
    return slice_at(UserHistory(user=name, user_key=name.decode(), events=found), JOURNEY, at)


def embedded(engine: QueryAnchorEngine, *slices: UserSlice, at: int = TODAY) -> list[bytes]:
    """Each user's answers to the queries, all users in one batch."""
    prefixes = engine.build_prefixes(slices, RandomVectors(engine.encoder_dim))
    answers = engine.embed(prefixes, [engine.prepare_query(one) for one in QUERIES], [at] * len(slices))
    return [answer.tobytes() for answer in answers]


numbers = st.integers(0, len(TEXTS) - 1)
within = st.integers(OPENED + 1, TODAY)
before = st.integers(OPENED - 90 * DAY, OPENED)
after = st.integers(TODAY + 1, TODAY + 90 * DAY)
visible = st.tuples(within, within, numbers)
happens_later = st.tuples(after, st.one_of(within, after), numbers)
learnt_later = st.tuples(st.one_of(before, within), after, numbers)
expired = st.tuples(before, before, numbers)
hidden = st.one_of(happens_later, learnt_later, expired)
hidden_card = st.one_of(happens_later, learnt_later)


@settings(max_examples=25, deadline=None)
@given(
    own=st.lists(visible, max_size=7),
    cards=st.lists(visible, max_size=2),
    hidden=st.lists(hidden, min_size=1, max_size=4),
    hidden_cards=st.lists(hidden_card, max_size=2),
    others=st.lists(visible, max_size=7),
    others_more=st.lists(visible, min_size=1, max_size=4),
)
def test_what_may_not_be_seen_changes_no_byte(demo, own, cards, hidden, hidden_cards, others, others_more):
    other = seen(others, name=b"other")
    plain, _ = embedded(demo, seen(own, cards), other)
    with_hidden, _ = embedded(demo, seen([*own, *hidden], [*cards, *hidden_cards]), other)
    assert with_hidden == plain
    of_another, _ = embedded(demo, seen(own, cards), seen([*others, *others_more], name=b"other"))
    assert of_another == plain


@settings(max_examples=15, deadline=None)
@given(own=st.lists(visible, max_size=3), number=numbers)
@pytest.mark.parametrize(
    ("instant", "is_seen"),
    [(TODAY, True), (TODAY + 1, False), (OPENED, False), (OPENED + 1, True)],
    ids=["at t", "1 us after t", "at t - window", "1 us after t - window"],
)
def test_the_window_is_exact_to_the_microsecond_in_the_embedding(demo, instant, is_seen, own, number):
    without, one_more = seen(own), seen([*own, (instant, min(instant, TODAY), number)])
    assert one_more.num_events == without.num_events + is_seen
    assert (embedded(demo, one_more) != embedded(demo, without)) == is_seen


def test_an_event_is_seen_once_it_is_known_and_not_a_microsecond_before(demo):
    late = (TODAY - DAY, TODAY, 3)
    for at, is_seen in ((TODAY - 1, False), (TODAY, True)):
        without, one_more = seen([], at=at), seen([late], at=at)
        assert (embedded(demo, one_more, at=at) != embedded(demo, without, at=at)) == is_seen
