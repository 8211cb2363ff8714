"""What drives a synthetic user, and what it will truly do.

Shape letters: U users, K interests.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from qanchor_plugin.evaluation.synthetic.tasks import SYNTHETIC_TASKS, SyntheticTask
from qanchor_plugin.evaluation.synthetic.vocabulary import NAMES, NUM_INTERESTS

Float64 = npt.NDArray[np.float64]

LIFE_EVENTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "new_baby": ("parenting", "health"),
    "job_loss": ("borrowing", "education"),
    "new_home": ("home", "gardening"),
    "new_pet": ("pets",),
    "new_car": ("motoring", "travel"),
}
"""What a life event makes a user care about."""

LIFE_EVENT_NAMES = tuple(LIFE_EVENTS)
LIFE_EVENT_SHARES = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1)
LIFE_EVENT_STRENGTH = 8.0
LIFE_EVENT_FADES_DAYS = 60.0
NUM_PERSONAS = 12
_PERSONA_SEED = 20_251
_REFERENCE_USERS = 20_000


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Latent state of U users.

    Attributes:
        interests: (U, K) strengths before any life event, mean about 1.
        log_activity: (U,) standard normal.
        trend: (U,) log growth of the event rate over the history, standard deviation 0.8.
        thrift: (U,) standard normal; no event shows it.
        life_event: (U,) int64 index into ``LIFE_EVENT_NAMES``.
        life_event_day: (U,) day of the history it happened.
    """

    interests: Float64
    log_activity: Float64
    trend: Float64
    thrift: Float64
    life_event: npt.NDArray[np.int64]
    life_event_day: Float64

    def take(self, index: npt.NDArray[np.int64]) -> "Latents":
        """The users at ``index``."""
        return Latents(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


@cache
def _personas() -> Float64:
    """(P, K) typical strengths: each persona cares about four interests more than others."""
    rng = np.random.default_rng(_PERSONA_SEED)
    strengths = np.full((NUM_PERSONAS, NUM_INTERESTS), 0.5)
    for persona in strengths:
        persona[rng.choice(NUM_INTERESTS, 4, replace=False)] = 2.0
    return strengths


def draw_latents(rng: np.random.Generator, num_users: int, history_days: float) -> Latents:
    """Latents of ``num_users`` users: a persona, own gamma tastes, perhaps one life event."""
    persona = rng.integers(0, NUM_PERSONAS, num_users)
    tastes = rng.gamma(0.6, 1 / 0.6, (num_users, NUM_INTERESTS))
    return Latents(
        interests=_personas()[persona] * tastes,
        log_activity=rng.normal(size=num_users),
        trend=rng.normal(scale=0.8, size=num_users),
        thrift=rng.normal(size=num_users),
        life_event=rng.choice(len(LIFE_EVENT_NAMES), num_users, p=LIFE_EVENT_SHARES),
        life_event_day=rng.uniform(0, history_days, num_users),
    )


def life_event_boost(latents: Latents, user: npt.NDArray[np.int64], day: Float64) -> Float64:
    """(N, K) what is added to interests of ``user`` on ``day`` (both (N,)): a jump that fades."""
    age = day - latents.life_event_day[user]
    left = np.where(age >= 0, np.exp(-np.maximum(age, 0) / LIFE_EVENT_FADES_DAYS), 0.0)
    return LIFE_EVENT_STRENGTH * left[:, None] * _boosted()[latents.life_event[user]]


@cache
def _boosted() -> Float64:
    table = np.zeros((len(LIFE_EVENT_NAMES), NUM_INTERESTS))
    for row, names in enumerate(LIFE_EVENTS.values()):
        table[row, [NAMES.index(name) for name in names]] = 1.0
    return table


def propensities(latents: Latents, history_days: float) -> dict[str, Float64]:
    """By task, the (U,) true probability of a positive label in the window after the cutoff."""
    return {
        task.name: _sigmoid(_logits(task, latents, history_days) + _intercept(task, history_days))
        for task in SYNTHETIC_TASKS
    }


def _logits(task: SyntheticTask, latents: Latents, history_days: float) -> Float64:
    everyone = np.arange(len(latents.thrift))
    cutoff = np.full(len(everyone), float(history_days))
    strength = np.log1p(latents.interests + life_event_boost(latents, everyone, cutoff))
    mean, scale = _strength_scale(history_days)
    standardised = (strength - mean) / scale
    logits = np.zeros(len(everyone))
    for name, weight in task.interests.items():
        logits += weight * standardised[:, NAMES.index(name)]
    fading = np.exp(-(cutoff - latents.life_event_day) / LIFE_EVENT_FADES_DAYS)
    for name, weight in task.drivers.items():
        if name == "activity":
            logits += weight * (latents.log_activity + latents.trend / 2)
        elif name == "thrift":
            logits += weight * latents.thrift
        else:
            logits += weight * fading * (latents.life_event == LIFE_EVENT_NAMES.index(name))
    return logits


@cache
def _reference(history_days: float) -> Latents:
    """A population of its own that scales and intercepts are measured on: worlds share them."""
    return draw_latents(np.random.default_rng(_PERSONA_SEED + 1), _REFERENCE_USERS, history_days)


@cache
def _strength_scale(history_days: float) -> tuple[Float64, Float64]:
    latents = _reference(history_days)
    everyone = np.arange(_REFERENCE_USERS)
    cutoff = np.full(_REFERENCE_USERS, float(history_days))
    strength = np.log1p(latents.interests + life_event_boost(latents, everyone, cutoff))
    return strength.mean(0), strength.std(0)


@cache
def _intercept(task: SyntheticTask, history_days: float) -> float:
    """The intercept at which the reference population's mean propensity is the task's rate."""
    logits = _logits(task, _reference(history_days), history_days)
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if _sigmoid(logits + middle).mean() < task.rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _sigmoid(x: Float64) -> Float64:
    return 1.0 / (1.0 + np.exp(-x))
