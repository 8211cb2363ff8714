"""The next instant at which other events are visible: hand-made, and against a slice at every candidate."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.sequence import UserHistory, slice_at
from qanchor_plugin.sequence.next_change import NEVER, next_change
from tests.unit.sequence.test_slice import DAY, events, history, visits

_SOURCE = SourceSpec(name="s", path="raw/s", event_at="t")
_USER = EntityRef(name="user", join_key="user_id", value_type="STRING")
_INSTANTS = st.integers(0, 40)


def profile_of(window: timedelta | None) -> Profile:
    modalities = [
        Modality("visits", _SOURCE, text="{b}", max_events=2),
        Modality("household", _SOURCE, text="{c}", kind="tabular"),
        Modality("fixed", _SOURCE, text="{d}", kind="tabular", static=True),
    ]
    return Profile("journey", _USER, modalities, window=window)


def test_the_oldest_visible_event_leaves_when_the_window_has_passed(profile: Profile) -> None:
    at = visits(95 * DAY, 97 * DAY, 80 * DAY)
    assert next_change(history(visits=at), profile, 100 * DAY) == 105 * DAY
    assert next_change(history(visits=at), profile, 105 * DAY) == 107 * DAY
    assert next_change(history(visits=at), profile, 107 * DAY) == NEVER


def test_an_event_enters_when_it_has_happened_and_is_known(profile: Profile) -> None:
    at = visits((95 * DAY, 101 * DAY), (102 * DAY, 102 * DAY))
    assert next_change(history(visits=at), profile, 100 * DAY) == 101 * DAY
    assert next_change(history(visits=at), profile, 101 * DAY) == 102 * DAY


def test_an_event_known_after_its_window_is_never_seen(profile: Profile) -> None:
    assert next_change(history(visits=visits((80 * DAY, 95 * DAY))), profile, 90 * DAY) == NEVER


def test_without_a_window_nothing_leaves() -> None:
    profile = profile_of(None)
    assert next_change(history(visits=visits(3, 9)), profile, 5) == 9
    assert next_change(history(visits=visits(3, 9)), profile, 9) == NEVER


@settings(max_examples=300)
@given(
    visited=st.lists(st.tuples(_INSTANTS, _INSTANTS), max_size=5),
    described=st.lists(st.tuples(_INSTANTS, _INSTANTS), max_size=4),
    cutoff=_INSTANTS,
    window=st.sampled_from([None, timedelta(microseconds=7)]),
)
def test_until_then_the_slice_stays_and_then_it_is_another(
    visited: list[tuple[int, int]], described: list[tuple[int, int]], cutoff: int, window: timedelta | None
) -> None:
    profile = profile_of(window)
    user = history(
        visits=events([(at, known, f"v{n}", (), ()) for n, (at, known) in enumerate(visited)]),
        household=events([(at, known, f"h{n}", (), ()) for n, (at, known) in enumerate(described)]),
        fixed=events([(0, 0, "fixed", (), ())]),
    )
    changes = next_change(user, profile, cutoff)
    until = 60 if changes == NEVER else changes
    assert {_seen(user, profile, at) for at in range(cutoff, until)} == {_seen(user, profile, cutoff)}
    assert changes == NEVER or _seen(user, profile, changes) != _seen(user, profile, cutoff)


def _seen(user: UserHistory, profile: Profile, cutoff: int) -> str:
    return slice_at(user, profile, cutoff).visible_digest
