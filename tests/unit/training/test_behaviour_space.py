"""A meaning space of behaviour: what the same users do is alike, whatever it is called."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.engine.modules import MeaningSpace
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence import Events, UserHistory
from qanchor_plugin.sequence.slice import Sight, sight_at
from qanchor_plugin.training import behaviour_space
from qanchor_plugin.training.behaviour_space import LEAST_USERS, count_things, fit_behaviour

DAY = 86_400_000_000
PROFILE = Profile(
    "people",
    EntityRef(name="user", join_key="user_id", value_type="INT64"),
    [
        Modality(
            "visits", SourceSpec(name="s", path="raw/s", event_at="t"), "{a}", group_by=("g",), max_events=2
        )
    ],
    window=None,
)
NUM_USERS, NUM_INTERESTS, THINGS_EACH, WIDTH, MOST = 600, 4, 6, 384, 64
INTEREST_OF = np.repeat(np.arange(NUM_INTERESTS), THINGS_EACH)


def planted_counts(strength: float) -> np.ndarray:
    """(600, 24): each user has one interest and does its things ``strength`` times as often."""
    random = np.random.default_rng(0)
    own = random.integers(0, NUM_INTERESTS, NUM_USERS)
    rate = np.where(own[:, None] == INTEREST_OF, 0.5 * strength, 0.5)
    return random.poisson(rate).astype(np.float32)


def meaningless_names() -> np.ndarray:
    """(24, 384) unit vectors that know nothing of each other."""
    made = np.random.default_rng(1).normal(size=(len(INTEREST_OF), WIDTH))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


ASKED = 2 * meaningless_names()[0]
"""What every question says, whatever it asks about: it reads like the first thing, louder than its own."""


def space_of(fitted: dict[str, np.ndarray]) -> MeaningSpace:
    made = MeaningSpace(WIDTH, MOST, of_behaviour=True)
    made.load_state_dict({name: torch.from_numpy(value) for name, value in fitted.items()})
    return made


@pytest.fixture(scope="module")
def space() -> MeaningSpace:
    names = meaningless_names()
    return space_of(fit_behaviour(names, planted_counts(6.0), names + ASKED, MOST))


def test_things_of_one_interest_are_alike_and_of_two_are_not(space):
    keys = space.texts(torch.from_numpy(meaningless_names())).numpy()
    cosines = keys @ keys.T
    same = INTEREST_OF[:, None] == INTEREST_OF
    assert cosines[same].min() > 0.8
    assert cosines[~same].max() < 0.2
    names = meaningless_names() - meaningless_names().mean(axis=0)
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    other_thing = same & ~np.eye(len(same), dtype=bool)
    assert np.abs((names @ names.T)[other_thing]).max() < 0.3  # the names alone do not say it


def test_a_question_about_one_thing_finds_what_goes_with_it(space):
    names = meaningless_names()
    noise = (np.random.default_rng(2).normal(size=WIDTH) / np.sqrt(WIDTH)).astype(np.float32)
    for thing in (0, 7, 23):
        asked = space.queries(torch.from_numpy(names[thing] + ASKED + noise)[None])[0].numpy()
        nearest = np.argsort(-(space.texts(torch.from_numpy(names)).numpy() @ asked))[:THINGS_EACH]
        assert set(INTEREST_OF[nearest]) == {INTEREST_OF[thing]}
        assert np.linalg.norm(asked) == pytest.approx(1.0, abs=1e-5)


def test_what_all_questions_say_is_not_heard(space):
    """Had the questions' own mean not been taken off, all would ask for much the same."""
    names = torch.from_numpy(meaningless_names() + ASKED)
    own = torch.from_numpy(meaningless_names())
    nearest = (space.queries(names) @ space.texts(own).T).argmax(1).numpy()
    assert (INTEREST_OF[nearest] == INTEREST_OF).all()
    deaf = copy.deepcopy(space)
    deaf.query_mean.copy_(space.text_mean)
    nearest = (deaf.queries(names) @ space.texts(own).T).argmax(1).numpy()
    assert (INTEREST_OF[nearest] == INTEREST_OF[0]).mean() > 0.9


def test_as_many_directions_are_kept_as_users_differ_in(space):
    used = np.abs(space.basis.numpy()).max(axis=0) > 0
    assert used.sum() == NUM_INTERESTS - 1  # an interest more is what the others leave
    assert not used[NUM_INTERESTS:].any()
    one = fit_behaviour(meaningless_names(), planted_counts(6.0), meaningless_names(), 1)
    assert one["basis"].shape == one["query_basis"].shape == (WIDTH, 1)


def test_busy_users_are_no_direction():
    random = np.random.default_rng(3)
    busy = random.gamma(1.0, 2.0, (NUM_USERS, 1))
    counts = random.poisson(busy * np.ones(len(INTEREST_OF))).astype(np.float32)
    with pytest.raises(InputDataError, match=r"nothing that goes together.*--space texts"):
        fit_behaviour(meaningless_names(), counts, meaningless_names(), MOST)


def test_chance_is_no_direction():
    with pytest.raises(InputDataError, match=r"600 users.*more than chance"):
        fit_behaviour(meaningless_names(), planted_counts(1.0), meaningless_names(), MOST)


def ids_of(names: list[str]) -> np.ndarray:
    return np.frombuffer(b"".join(text_id(one) if one else bytes(16) for one in names), np.uint8).reshape(
        -1, 16
    )


def sight_of(groups: dict[str, int], text: str = "bought it", *, later: str = "later") -> Sight:
    """A user who did each thing so often on day 1, each time with the same text; and one on day 3, unseen."""
    names = [*(name for name, count in groups.items() for _ in range(count)), "", later]
    at = np.array([DAY] * (len(names) - 1) + [3 * DAY])
    events = Events(
        event_at=at,
        known_at=at,
        text_id=ids_of([text] * len(names)),
        groups=ids_of(names)[:, None],
        amounts=np.zeros((len(names), 0)),
    )
    history = UserHistory(user=b"u", user_key="{}", events={"visits": events})
    return sight_at(history, PROFILE, 2 * DAY)


@dataclass
class Endless:
    """Sights without end; remembers how many were taken."""

    taken: int = 0

    def __iter__(self) -> Iterator[Sight]:
        while True:
            self.taken += 1
            yield sight_of({"tea": 2, "milk": 1})


def test_counts_are_the_users_groups_and_rare_things_are_left_out():
    users = [sight_of({"tea": number, "milk": 1}, "bought tea") for number in range(1, LEAST_USERS + 1)]
    users += [sight_of({"milk": 3, "caviar": 9}), sight_of({})]
    seen = count_things(users)
    assert seen.counts[:, 0].tolist() == [1.0] * LEAST_USERS + [3.0, 0.0]  # milk has the most users
    assert seen.counts[:, 1].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0]
    assert [one.tobytes() for one in seen.ids] == [text_id("milk"), text_id("tea")]


def test_at_most_so_many_users_are_read(monkeypatch):
    monkeypatch.setattr(behaviour_space, "MOST_USERS", 7)
    endless = Endless()
    assert count_things(endless).counts.shape == (7, 2)
    assert endless.taken <= 8


def test_a_profile_without_groups_is_refused():
    with pytest.raises(InputDataError, match="Declare group_by keys"):
        count_things([sight_of({}, "bought tea")] * 10)
