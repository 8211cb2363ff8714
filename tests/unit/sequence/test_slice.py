"""What a cutoff lets through: hand-made histories, and properties over random ones."""

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence import Events, UserHistory, UserSlice, slice_at
from qanchor_plugin.sequence.slice import MICROS_PER_DAY, _summary

DAY = MICROS_PER_DAY


def events(rows: list[tuple], num_groups: int = 0, num_amounts: int = 0) -> Events:
    """Events from (event_at, known_at, text, groups, amounts)."""
    ids = [text_id(row[2]) for row in rows]
    names = [bytes(16) if name is None else text_id(name) for row in rows for name in row[3]]
    return Events(
        event_at=np.array([row[0] for row in rows], np.int64),
        known_at=np.array([row[1] for row in rows], np.int64),
        text_id=np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16),
        groups=np.frombuffer(b"".join(names), np.uint8).reshape(len(rows), num_groups, 16),
        amounts=np.array([row[4] for row in rows], np.float64).reshape(len(rows), num_amounts),
    ).sorted()


def history(**by_modality: Events) -> UserHistory:
    return UserHistory(user=b"u", user_key="u", events=by_modality)


def visits(*times: int | tuple[int, int]) -> Events:
    rows = [(t, t) if isinstance(t, int) else t for t in times]
    return events([(at, known, f"page {at}", (), ()) for at, known in rows])


def seen(profile: Profile, visited: Events, cutoff: int) -> list[int]:
    wide = replace_cap(profile, 100)
    return slice_at(history(visits=visited), wide, cutoff).modalities[1].event_at.tolist()


def replace_cap(profile: Profile, max_events: int) -> Profile:
    body = profile.to_dict()
    for modality in body["modalities"]:
        modality["max_events"] = max_events
    return Profile.from_dict(body)


def test_the_window_is_open_at_its_start_and_closed_at_the_cutoff(profile: Profile) -> None:
    cutoff = 100 * DAY
    opened = cutoff - 10 * DAY
    at = visits(opened, opened + 1, cutoff - 1, cutoff, cutoff + 1)
    assert seen(profile, at, cutoff) == [opened + 1, cutoff - 1, cutoff]


def test_what_was_not_yet_known_is_not_seen(profile: Profile) -> None:
    cutoff = 100 * DAY
    at = visits((cutoff - 2, cutoff), (cutoff - 1, cutoff + 1))
    assert seen(profile, at, cutoff) == [cutoff - 2]


def test_caps_keep_the_newest_and_break_ties_by_text_id(profile: Profile) -> None:
    texts = ["a", "b", "c", "d"]
    tied = events([(5 * DAY, 0, text, (), ()) for text in texts])
    kept = slice_at(history(visits=tied), profile, 6 * DAY).modalities[1]
    assert [bytes(one) for one in kept.text_id] == sorted(text_id(t) for t in texts)[-2:]
    assert kept.num_visible == 4


def test_groups_count_the_whole_window_by_hand(profile: Profile) -> None:
    rows = [
        (1 * DAY, 0, "milk", ("dairy", "food"), (2.0,)),
        (2 * DAY, 0, "eggs", ("dairy", "food"), (3.0,)),
        (9 * DAY, 0, "soap", ("care", None), (float("nan"),)),
        (9 * DAY + 5, 0, "milk", ("dairy", "food"), (4.0,)),
        (9 * DAY + 6, 0, "milk", (None, None), (8.0,)),
    ]
    bought = events(rows, num_groups=2, num_amounts=1)
    taken = slice_at(history(purchases=bought), profile, 10 * DAY)
    groups = {(g.key, bytes(g.text_id)): g.summary for g in taken.groups}
    dairy = groups["category", text_id("dairy")]
    assert (dairy.count, dairy.count_30, dairy.count_90) == (3, 3, 3)
    assert (dairy.first_at, dairy.last_at) == (DAY, 9 * DAY + 5)
    assert dairy.amounts.tolist() == [9.0]
    assert groups["category", text_id("care")].amounts.tolist() == [0.0]
    assert taken.num_groups_visible == 3
    assert taken.num_events == 5
    assert taken.as_of == 9 * DAY + 6
    totals = taken.modalities[0].summary
    assert totals is not None
    assert (totals.count, totals.amounts.tolist()) == (5, [17.0])


def test_recency_counts_start_at_the_last_event_not_at_the_cutoff(profile: Profile) -> None:
    wide = Profile(
        profile.name, profile.entities, profile.modalities, window=None, max_groups=profile.max_groups
    )
    rows = [(day * DAY, 0, "milk", ("dairy", None), (1.0,)) for day in (0, 60, 71, 100)]
    bought = events(rows, num_groups=2, num_amounts=1)
    near, far = (slice_at(history(purchases=bought), wide, cutoff * DAY) for cutoff in (100, 5000))
    summary = far.groups[0].summary
    assert (summary.count, summary.count_30, summary.count_90) == (4, 2, 3)
    assert near.visible_digest == far.visible_digest
    assert near.groups[0].summary.count_30 == 2


def test_the_highest_groups_by_count_and_age_are_kept(profile: Profile) -> None:
    wide = Profile(profile.name, profile.entities, profile.modalities[:1], window=None, max_groups=2)
    rows = [(0, 0, "x", ("old", None), (0.0,))] * 3 + [(120 * DAY, 0, "x", (g, None), (0.0,)) for g in "ab"]
    bought = events([*rows, (120 * DAY, 0, "x", ("a", None), (0.0,))], num_groups=2, num_amounts=1)
    kept = slice_at(history(purchases=bought), wide, 121 * DAY)
    # weights: a 2, b 1, old 3 / (1 + 120/60) = 1; b and old tie and the smaller text id wins
    second = min(text_id("b"), text_id("old"))
    assert [bytes(g.text_id) for g in kept.groups] == [text_id("a"), second]
    assert kept.num_groups_visible == 3


def test_a_tabular_modality_shows_its_latest_known_row_whatever_the_window(profile: Profile) -> None:
    rows = [(1 * DAY, 1 * DAY, "old", (), ()), (2 * DAY, 500 * DAY, "late", (), ())]
    table = events(rows)
    before, after, never = (
        slice_at(history(household=table), profile, day * DAY).modalities[2] for day in (400, 500, 0)
    )
    assert bytes(before.text_id[0]) == text_id("old")
    assert bytes(after.text_id[0]) == text_id("late")
    assert len(never.text_id) == 0


def test_a_static_row_is_visible_at_any_instant() -> None:
    source = SourceSpec(name="s", path="x", event_at="")
    static = Modality("people", source, text="{a}", kind="tabular", static=True)
    entity = EntityRef(name="user", join_key="user_id", value_type="INT64")
    one = Profile("p", entity, [static])
    table = events([(0, 0, "two adults", (), ())])
    taken = slice_at(history(people=table), one, -5)
    assert len(taken.modalities[0].text_id) == 1
    assert taken.num_events == 0


def test_nothing_visible_is_a_slice_too(profile: Profile) -> None:
    taken = slice_at(history(), profile, DAY)
    assert (taken.num_events, taken.as_of, taken.groups) == (0, None, ())
    assert [len(m.text_id) for m in taken.modalities] == [0, 0, 0]
    assert [m.summary for m in taken.modalities] == [None, None, None]


def test_max_tokens_shrinks_events_evenly(profile: Profile) -> None:
    tight = Profile("p", profile.entities, profile.modalities[1:2], window=None, max_tokens=5)
    taken = slice_at(history(visits=visits(1, 2, 3, 4)), tight, DAY)
    assert taken.modalities[0].event_at.tolist() == [4]


times = st.integers(min_value=80 * DAY, max_value=120 * DAY)
event_rows = st.lists(
    st.tuples(times, times, st.sampled_from("abc"), st.sampled_from(["g", "h", None]), st.floats(0, 9)),
    max_size=12,
)


def as_events(rows: list[tuple]) -> Events:
    return events([(at, kn, text, (g, None), (x,)) for at, kn, text, g, x in rows], 2, 1)


def body(taken: UserSlice) -> tuple:
    """Everything an engine reads, as comparable bytes."""
    modalities = [
        (m.text_id.tobytes(), m.event_at.tobytes(), m.num_visible, str(m.summary)) for m in taken.modalities
    ]
    groups = [(g.modality, g.key, g.text_id.tobytes(), str(g.summary)) for g in taken.groups]
    return (modalities, groups, taken.num_events, taken.as_of, taken.visible_digest)


@given(event_rows, event_rows, st.integers(min_value=100 * DAY, max_value=110 * DAY))
def test_what_happens_or_is_learnt_after_the_cutoff_changes_nothing(
    base: list, extra: list, cutoff: int
) -> None:
    profile = _profile()
    hidden = [row for row in extra if row[0] > cutoff or row[1] > cutoff or row[0] <= cutoff - 10 * DAY]
    plain = slice_at(history(purchases=as_events(base)), profile, cutoff)
    more = slice_at(history(purchases=as_events([*base, *hidden])), profile, cutoff)
    assert body(plain) == body(more)


@given(event_rows, st.permutations(range(12)), st.integers(min_value=100 * DAY, max_value=110 * DAY))
def test_arrival_order_changes_nothing(base: list, order: list[int], cutoff: int) -> None:
    profile = _profile()
    shuffled = [base[i] for i in order if i < len(base)]
    one, other = (slice_at(history(purchases=as_events(rows)), profile, cutoff) for rows in (base, shuffled))
    assert body(one) == body(other)


@given(event_rows, st.integers(min_value=100 * DAY, max_value=110 * DAY))
def test_the_slice_equals_a_plain_filter(base: list, cutoff: int) -> None:
    profile = replace_cap(_profile(), 100)
    taken = slice_at(history(purchases=as_events(base)), profile, cutoff)
    plain = [at for at, known, *_ in base if cutoff - 10 * DAY < at <= cutoff and known <= cutoff]
    assert taken.modalities[0].event_at.tolist() == sorted(plain)
    assert taken.num_events == len(plain)


@given(event_rows.filter(bool))
def test_groups_are_counted_at_once_as_each_alone(base: list) -> None:
    rows = [(at, at, text, (group, None), (math.nan if x > 8 else x,)) for at, _, text, group, x in base]
    purchases = events(rows, 2, 1)
    taken = slice_at(history(purchases=purchases), replace_cap(_profile(), 100), 120 * DAY)
    visible = purchases.event_at > 110 * DAY
    for token in taken.groups:
        of_group = (purchases.groups[:, 0] == token.text_id).all(axis=1)
        alone = _summary(purchases, np.flatnonzero(visible & of_group), taken.as_of or 0)
        assert replace(token.summary, amounts=None) == replace(alone, amounts=None)
        np.testing.assert_allclose(token.summary.amounts, alone.amounts, rtol=1e-12)
    named = {row[3][0] for row in rows if row[0] > 110 * DAY} - {None}
    assert len(taken.groups) == min(len(named), _profile().max_groups)


@given(event_rows.filter(bool), st.integers(min_value=0, max_value=11))
def test_one_visible_event_less_is_another_digest(base: list, index: int) -> None:
    profile = Profile("p", _profile().entities, _profile().modalities, window=None)
    cutoff = 121 * DAY
    fewer = [row for i, row in enumerate(base) if i != index % len(base)]
    one, other = (slice_at(history(purchases=as_events(rows)), profile, cutoff) for rows in (base, fewer))
    assert one.visible_digest != other.visible_digest


def _profile() -> Profile:
    source = SourceSpec(name="s", path="raw/s", event_at="t")
    purchases = Modality(
        "purchases", source, text="{a}", group_by=("category", "department"), amounts=("price",), max_events=3
    )
    entity = EntityRef(name="user", join_key="user_id", value_type="STRING")
    return Profile("journey", entity, [purchases], window=timedelta(days=10))
