"""A meaning space of behaviour: things are alike when the same users do them, whatever they are called.

A sentence encoder knows that a cat litter and a kitten food go together; it cannot know it of two brands, or
of noodles and a late-night taxi. The users' own counts do: latent semantic analysis of the table of users by
things (Deerwester et al. 1990) gives each thing a place, parallel analysis (Horn 1965) says how many
directions are more than chance, and a ridge regression carries the places over to texts, so that a thing
never seen stands near those it reads like. No label is read, and nothing beyond the pairs' cutoffs.

Shape letters: U users, G things (groups that the profile declares), E encoder width, M meaning width,
D directions, Q questions.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.sequence.slice import Sight

Float32 = npt.NDArray[np.float32]
Floating = npt.NDArray[np.floating]
UInt8 = npt.NDArray[np.uint8]

MOST_USERS, MOST_THINGS = 20_000, 2_000
"""More add memory and minutes, and no direction that so many do not show."""
MOST_QUESTIONS = 10_000
"""Their mean is what is wanted, and a language model may have written another one for every user."""
LEAST_USERS = 5
"""A thing that fewer users do says nothing of what goes with it."""
NUM_SHUFFLES = 10
"""A direction is one that none of so many shuffled tables has."""
RIDGE = 0.003
"""Beside squares of unit vectors; small, so that known things keep their places."""


@dataclass(frozen=True, kw_only=True)
class ThingCounts:
    """What users do how often.

    Attributes:
        ids: (G, 16) uint8, text ids of the things, by falling number of users.
        counts: (U, G) float32, events.
    """

    ids: UInt8
    counts: Float32


def count_things(sights: Iterable[Sight]) -> ThingCounts:
    """The groups of the first ``MOST_USERS`` sights, one a user; those of ``LEAST_USERS`` users or more.

    Raises:
        InputDataError: fewer than two such things.
    """
    rows = [
        _counted([one.groups for one in sight.events().values()])
        for sight, _ in zip(sights, range(MOST_USERS), strict=False)
    ]
    users_of = Counter(thing for row in rows for thing in row)
    common = sorted((-count, thing) for thing, count in users_of.items() if count >= LEAST_USERS)
    things = [thing for _, thing in common[:MOST_THINGS]]
    if len(things) < 2:
        raise InputDataError(
            f"{len(rows)} users share {len(things)} groups that {LEAST_USERS} of them have; a space of "
            "behaviour needs two at least. Declare group_by keys on the profile's modalities, or train with "
            "--space texts."
        )
    counts = np.array([[row.get(thing, 0) for thing in things] for row in rows], np.float32)
    return ThingCounts(ids=_ids(things), counts=counts)


def _counted(ids: list[UInt8]) -> dict[bytes, int]:
    """How often each id occurs; zeros stand for none."""
    flat = np.concatenate([np.ascontiguousarray(one).reshape(-1, TEXT_ID_BYTES) for one in ids])
    distinct, counts = np.unique(flat.view(f"V{TEXT_ID_BYTES}").ravel(), return_counts=True)
    found = dict(zip((one.tobytes() for one in distinct), counts.tolist(), strict=True))
    found.pop(bytes(TEXT_ID_BYTES), None)
    return found


def fit_behaviour(
    things_GE: Float32, counts_UG: Float32, questions_QE: Float32, num_directions: int, *, seed: int = 0
) -> dict[str, Float32]:
    """Tensors of a ``MeaningSpace`` of behaviour: means (E,) and maps (E, M); columns beyond the directions
    that users differ in are zero.

    Args:
        things_GE: vectors of the things' names.
        counts_UG: how often each user did each.
        questions_QE: vectors of questions about any of them. Their mean is what a question says by being one;
            it is subtracted from every query, as the things' mean is from every text.
        num_directions: M, the most that are kept.
        seed: of the permutation that says what chance gives.

    Raises:
        InputDataError: the users' counts show no direction beyond chance.
    """
    places_GD = _places(counts_UG, num_directions, np.random.default_rng(seed))
    text_mean_E = things_GE.mean(axis=0, dtype=np.float64)
    centred_GE = things_GE - text_mean_E
    centred_GE /= np.linalg.norm(centred_GE, axis=1, keepdims=True).clip(1e-9)
    inner_EE = centred_GE.T @ centred_GE + RIDGE * np.eye(centred_GE.shape[1])
    of_texts = np.linalg.solve(inner_EE, centred_GE.T @ places_GD)
    of_queries = centred_GE.T @ places_GD  # the places of all things, each by how much it is asked for
    return {
        "text_mean": text_mean_E.astype(np.float32),
        "query_mean": questions_QE.mean(axis=0, dtype=np.float64).astype(np.float32),
        "basis": _padded(of_texts, num_directions),
        "query_basis": _padded(of_queries, num_directions),
    }


def _places(counts_UG: Float32, most: int, random: np.random.Generator) -> Floating:
    """(G, D) unit rows: the things in the directions of the users that no permutation explains."""
    left_UG = _beyond_activity(counts_UG)
    values_G, vectors_GG = np.linalg.eigh(left_UG.T @ left_UG / len(left_UG))
    by_chance = max(_largest_of_shuffled(left_UG, random) for _ in range(NUM_SHUFFLES))
    num_found = min(int((values_G > by_chance).sum()), most)
    if not num_found:
        raise InputDataError(
            f"the counts of {len(counts_UG)} users show nothing that goes together more than chance would "
            "have it; a space of behaviour has nothing to hold. Train with --space texts."
        )
    places_GD = vectors_GG[:, -num_found:] * np.sqrt(values_G[-num_found:])
    return places_GD / np.linalg.norm(places_GD, axis=1, keepdims=True).clip(1e-9)


def _largest_of_shuffled(left_UG: Floating, random: np.random.Generator) -> float:
    """The largest eigenvalue where nothing goes together: each column in an order of its own."""
    shuffled_UG = np.column_stack([random.permutation(column) for column in left_UG.T])
    return float(np.linalg.eigvalsh(shuffled_UG.T @ shuffled_UG / len(left_UG))[-1])


def _beyond_activity(counts_UG: Float32) -> Floating:
    """(U, G) Pearson residuals of unit variance: how far each count is from what the user's activity and the
    thing's share would have, cut at the root of U (Lause, Berens, Kobak 2021)."""
    active_UG = counts_UG[counts_UG.sum(axis=1) > 0].astype(np.float64)
    expected_UG = active_UG.sum(axis=1, keepdims=True) * active_UG.sum(axis=0) / active_UG.sum()
    most = np.sqrt(len(active_UG))
    left_UG = np.clip((active_UG - expected_UG) / np.sqrt(expected_UG), -most, most)
    left_UG -= left_UG.mean(axis=0)
    spread_G = left_UG.std(axis=0)
    return left_UG / np.where(spread_G > 0, spread_G, 1.0)


def _padded(map_ED: Floating, width: int) -> Float32:
    out = np.zeros((len(map_ED), width), np.float32)
    out[:, : map_ED.shape[1]] = map_ED
    return out


def _ids(keys: list[bytes]) -> UInt8:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, TEXT_ID_BYTES)
