"""Pushed events beside stored ones: every interleaving counts an event once, and none is lost."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence import Events, UserHistory, slice_at
from qanchor_plugin.sequence.pushed import PushedEvent, waiting, with_pushed
from tests.shop import PROFILE, PURCHASES, at, user

PRODUCTS = ("milk", "bread")
Deed = tuple[int, str, float]
"""Day of December 2017, product, amount: an event's whole identity here."""

deeds = st.tuples(st.integers(1, 3), st.sampled_from(PRODUCTS), st.sampled_from([1.0, 2.0, math.nan]))
batches = st.lists(deeds, max_size=6)
pushes = st.lists(st.lists(deeds, max_size=4), max_size=4)


def instant(deed: Deed) -> int:
    return at(f"2017-12-{deed[0]:02d}")


def stored(rows: list[Deed]) -> Events:
    return Events(
        event_at=np.array([instant(one) for one in rows], np.int64),
        known_at=np.array([instant(one) for one in rows], np.int64),
        text_id=np.frombuffer(b"".join(text_id(one[1]) for one in rows), np.uint8).reshape(-1, 16),
        groups=np.zeros((len(rows), 1, 16), np.uint8),
        amounts=np.array([[one[2]] for one in rows], np.float64).reshape(-1, 1),
    ).sorted()


def pushed(sent: list[list[Deed]]) -> list[PushedEvent]:
    return [
        PushedEvent(
            modality_digest=PURCHASES.sequence_digest,
            user=user(1),
            user_key='{"household_id": 1}',
            push=f"p{number}",
            row=f"p{number}-{row}",
            pushed_at=0,
            event_at=instant(deed),
            known_at=at("2017-12-31"),
            text_id=text_id(deed[1]),
            groups=bytes(16),
            amounts=(deed[2],),
        )
        for number, rows in enumerate(sent)
        for row, deed in enumerate(rows)
    ]


def named(deed: Deed) -> tuple[int, str, str]:
    return deed[0], deed[1], str(deed[2])


def seen(batch: list[Deed], sent: list[list[Deed]]) -> Counter[tuple[int, str, str]]:
    """What a reader counts, by identity."""
    known = {}
    if batch:
        history = UserHistory(user=user(1), user_key="", events={"purchases": stored(batch)})
        known = {user(1): history}
    events = pushed(sent)
    merged = with_pushed(known, {user(1): events} if events else {}, PROFILE)
    if not merged:
        return Counter()
    found = merged[user(1)].events["purchases"]
    names = {text_id(one): one for one in PRODUCTS}
    days = (found.event_at - at("2017-12-01")) // 86_400_000_000 + 1
    return Counter(
        (int(day), names[text.tobytes()], str(float(amount)))
        for day, text, amount in zip(days, found.text_id, found.amounts[:, 0], strict=True)
    )


def counted(rows: list[Deed]) -> Counter[tuple[int, str, str]]:
    return Counter(named(one) for one in rows)


@given(batches, pushes)
def test_an_event_is_counted_as_often_as_the_batch_or_one_push_has_it(batch, sent):
    expected = counted(batch)
    for rows in sent:
        expected |= counted(rows)
    assert seen(batch, sent) == expected


@given(pushes, st.integers(0, 20))
def test_the_batch_catching_up_changes_nothing(sent, cut):
    """However far the batch has come with what was pushed, the reader's counts stay the same."""
    whole: Counter[tuple[int, str, str]] = Counter()
    for rows in sent:
        whole |= counted(rows)
    brought = [(day, product, float(amount)) for day, product, amount in whole.elements()]
    before = seen([], sent)
    assert before == whole
    assert seen(brought[:cut], sent) == before
    assert seen(brought, sent) == seen(brought, []) == before


@given(batches, pushes, st.data())
def test_a_push_sent_again_and_any_order_of_pushes_change_nothing(batch, sent, data):
    again = [*sent, *(data.draw(st.lists(st.sampled_from(sent), max_size=3)) if sent else [])]
    shuffled = data.draw(st.permutations(again))
    assert seen(batch, shuffled) == seen(batch, sent)


@given(batches, pushes)
def test_rows_that_the_batch_has_brought_may_go_at_any_moment(batch, sent):
    """What spark_jobs.pushed removes: rows of identities that the batch has as often as any one push."""
    have, wanted = counted(batch), Counter()
    for rows in sent:
        wanted |= counted(rows)
    left = [[one for one in rows if have[named(one)] < wanted[named(one)]] for rows in sent]
    assert seen(batch, left) == seen(batch, sent)


def test_the_copies_that_are_missing_are_the_last_of_the_push_that_has_most():
    events = pushed([[(1, "milk", 1.0)], [(1, "milk", 1.0), (1, "milk", 1.0), (2, "bread", 2.0)]])
    assert [one.row for one in waiting(stored([(1, "milk", 1.0)]), events)] == ["p1-1", "p1-2"]
    assert [one.row for one in waiting(stored([]), events)] == ["p1-0", "p1-1", "p1-2"]


@pytest.mark.parametrize(
    ("stored_amount", "pushed_amount", "same"),
    [(0.0, -0.0, True), (math.nan, float("nan"), True), (2.5, 2.5000001, False)],
)
def test_amounts_are_the_same_where_the_numbers_are(stored_amount, pushed_amount, same):
    found = waiting(stored([(1, "milk", stored_amount)]), pushed([[(1, "milk", pushed_amount)]]))
    assert (found == []) is same


def test_a_pushed_event_is_seen_from_the_instant_that_it_was_known():
    merged = with_pushed({}, {user(1): pushed([[(3, "milk", 1.0)]])}, PROFILE)[user(1)]
    assert slice_at(merged, PROFILE, at("2017-12-30")).num_events == 0
    assert slice_at(merged, PROFILE, at("2017-12-31")).num_events == 1
    assert merged.user_key == '{"household_id": 1}'


def test_events_of_another_modality_are_passed_over():
    other = pushed([[(1, "milk", 1.0)]])[0]
    stranger = {
        user(2): [PushedEvent(**{**{n: getattr(other, n) for n in other.__slots__}, "modality_digest": "x"})]
    }
    assert with_pushed({}, stranger, PROFILE) == {}
