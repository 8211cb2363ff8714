"""Events of synthetic users, drawn from their latents.

Shape letters: N events, K interests.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qanchor_plugin.evaluation.synthetic.latents import Latents, life_event_boost
from qanchor_plugin.evaluation.synthetic.vocabulary import (
    MODALITIES,
    NUM_INTERESTS,
    NUM_ITEMS,
    num_forms,
)

MEAN_EVENTS = {"payments": 22.0, "mini_programs": 12.0, "page_paths": 14.0, "apps": 6.0, "searches": 8.0}
"""Events a modality of a user of median activity."""

BACKGROUND_SHARE = 0.35
MICROS_PER_DAY = 86_400_000_000
_TWIN_KEEPS = 0.9
_TWIN_SHIFT_DAYS = 0.25


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Events of one modality: (N,) arrays, ordered by user, then time.

    Attributes:
        user: int64, place of the user in its chunk.
        micros: int64 microseconds since the start of the history.
        thing: int64 index into ``vocabulary.items()``.
        form: int64, which text of the thing.
        amount: float64, money of a payment.
    """

    user: npt.NDArray[np.int64]
    micros: npt.NDArray[np.int64]
    thing: npt.NDArray[np.int64]
    form: npt.NDArray[np.int64]
    amount: npt.NDArray[np.float64]


def draw_events(
    rng: np.random.Generator,
    latents: Latents,
    twin_of: npt.NDArray[np.int64],
    history_days: float,
    events_scale: float,
) -> dict[str, Drawn]:
    """By modality, the events of a chunk; a twin (``twin_of`` >= 0) repeats its sibling's."""
    return {
        modality: _with_twins(
            rng, _draw_modality(rng, modality, latents, history_days, events_scale), twin_of, history_days
        )
        for modality in MODALITIES
    }


def _draw_modality(
    rng: np.random.Generator, modality: str, latents: Latents, history_days: float, events_scale: float
) -> Drawn:
    rate = MEAN_EVENTS[modality] * events_scale * np.exp(0.6 * latents.log_activity)
    counts = rng.poisson(rate)
    user = np.repeat(np.arange(len(counts)), counts)
    day = _days(rng, latents.trend[user], history_days)
    strength = latents.interests[user] + life_event_boost(latents, user, day)
    interest = _pick(rng, strength)
    interest = np.where(rng.random(len(user)) < BACKGROUND_SHARE, NUM_INTERESTS, interest)
    popularity = 1.0 / np.arange(1, NUM_ITEMS + 1) ** 0.7
    item = rng.choice(NUM_ITEMS, len(user), p=popularity / popularity.sum())
    return _ordered(
        user=user,
        micros=np.minimum(day * MICROS_PER_DAY, history_days * MICROS_PER_DAY - 1).astype(np.int64),
        thing=interest * NUM_ITEMS + item,
        form=rng.integers(0, num_forms(modality), len(user)),
        amount=np.round(np.exp(rng.normal(2.5, 0.9, len(user))), 2),
    )


def _days(rng: np.random.Generator, growth: np.ndarray, history_days: float) -> np.ndarray:
    """Instants in [0, history_days) at a rate that grows by exp(growth) from end to end."""
    growth = np.where(np.abs(growth) < 1e-3, 1e-3, growth)
    return np.log1p(rng.random(len(growth)) * np.expm1(growth)) / growth * history_days


def _pick(rng: np.random.Generator, strength: np.ndarray) -> np.ndarray:
    """(N,) column of each row of (N, K), drawn in proportion."""
    upto = np.cumsum(strength, axis=1)
    return (rng.random((len(upto), 1)) * upto[:, -1:] >= upto).sum(1).clip(max=strength.shape[1] - 1)


def _with_twins(
    rng: np.random.Generator, drawn: Drawn, twin_of: npt.NDArray[np.int64], history_days: float
) -> Drawn:
    """A twin's events are nine in ten of its sibling's, each up to six hours earlier or later."""
    twins = np.flatnonzero(twin_of >= 0)
    twin_by_sibling = np.full(len(twin_of), -1)
    twin_by_sibling[twin_of[twins]] = twins
    copied = np.flatnonzero((twin_by_sibling[drawn.user] >= 0) & (rng.random(len(drawn.user)) < _TWIN_KEEPS))
    shift = rng.uniform(-_TWIN_SHIFT_DAYS, _TWIN_SHIFT_DAYS, len(copied)) * MICROS_PER_DAY
    last = int(history_days * MICROS_PER_DAY) - 1
    own = twin_of[drawn.user] < 0
    parts = {name: (getattr(drawn, name)[own], getattr(drawn, name)[copied]) for name in _COLUMNS}
    parts["user"] = (drawn.user[own], twin_by_sibling[drawn.user[copied]])
    parts["micros"] = (
        drawn.micros[own],
        (drawn.micros[copied] + shift.astype(np.int64)).clip(0, last),
    )
    return _ordered(**{name: np.concatenate(pair) for name, pair in parts.items()})


_COLUMNS = tuple(Drawn.__dataclass_fields__)


def _ordered(**columns: np.ndarray) -> Drawn:
    order = np.lexsort((columns["form"], columns["thing"], columns["micros"], columns["user"]))
    return Drawn(**{name: values[order] for name, values in columns.items()})
