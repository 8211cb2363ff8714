"""What a build of UserU pairs asks, and how users fall into shards and folds."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qanchor_plugin.declare import Profile
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.sequence import UserHistory
from qanchor_plugin.sequence.slice import MICROS_PER_DAY

DEFAULT_BINS = (7, 30, 60)
HELD_OUT_ONE_IN = 20


@dataclass(frozen=True, kw_only=True)
class PairPlan:
    """What to ask of each user. Two builds of one plan over one lake are the same table.

    Attributes:
        known_until: pre-training sees nothing from this instant on (microseconds).
        num_cutoffs: cutoffs a shard, spread over its history, the same for all its users.
        num_topics: ``uqa`` topics a user and cutoff, the most relevant first; 0 asks none.
        num_absent: topics of those that the user shows nothing of ("no" is an answer, too).
        bins: time bins of ``future`` pairs, in days.
        horizons: days that ``outcome`` questions look ahead, ascending.
        questions_per_shard: ``outcome`` questions, the same for all users of a shard; 0 asks none.
        rare_share: an action that happens less often than this a user and cutoff is not asked about.
        users_per_shard: a training batch is made within one shard.
        warm_up_days: of a shard's history before its first cutoff.
        seed: moves shards, cutoffs, questions and the absent topics.
        users_per_batch: users whose drafts are asked for together.
    """

    known_until: int
    num_cutoffs: int = 6
    num_topics: int = 4
    num_absent: int = 1
    bins: tuple[int, ...] = DEFAULT_BINS
    horizons: tuple[int, ...] = (30, 60, 90)
    questions_per_shard: int = 48
    rare_share: float = 0.005
    users_per_shard: int = 256
    warm_up_days: int = 30
    seed: int = 0
    users_per_batch: int = 64

    def __post_init__(self) -> None:
        positive = min(self.num_cutoffs, self.users_per_batch, self.users_per_shard)
        if positive < 1 or not 0 <= self.num_absent <= self.num_topics:
            raise InputDataError(
                f"{self}: cutoffs, users_per_batch and users_per_shard must be 1 or more, num_absent 0 to "
                "num_topics."
            )
        if self.questions_per_shard < 0 or self.warm_up_days < 0:
            raise InputDataError(f"{self}: questions_per_shard and warm_up_days must be 0 or more.")
        if list(self.horizons) != sorted(set(self.horizons)) or not self.horizons or self.horizons[0] <= 0:
            raise InputDataError(
                f"horizons are {list(self.horizons)}; give ascending days above 0, such as (30, 60, 90)."
            )

    def fits(self, cutoff: int, days: int) -> bool:
        """Whether the days after ``cutoff`` lie wholly before ``known_until``."""
        return cutoff + days * MICROS_PER_DAY < self.known_until

    def num_shards(self, num_users: int) -> int:
        """Shards that so many users fall into; 1 at least."""
        return max(1, -(-num_users // self.users_per_shard))


def shard_of(user: bytes, *, seed: int, num_shards: int) -> int:
    """The shard of a user: SHA-256 of seed and key, its first 32 bits modulo ``num_shards``."""
    return _bits(f"shard {seed}:".encode() + user) % num_shards


def is_held_out(user: bytes) -> bool:
    """Whether a user is one of the 1 in 20 kept from training; the same in every build."""
    return _bits(b"held out:" + user) % HELD_OUT_ONE_IN == 0


def known_before(history: UserHistory, instant: int) -> UserHistory:
    """The history without what happened or became known at ``instant`` (microseconds) or later."""
    events = {
        name: one.take((one.event_at < instant) & (one.known_at < instant))
        for name, one in history.events.items()
    }
    return UserHistory(user=history.user, user_key=history.user_key, events=events)


def shard_cutoffs(
    histories: Iterable[UserHistory], profile: Profile, plan: PairPlan, *, shard: int
) -> list[int]:
    """At most ``num_cutoffs`` instants, ascending, one in each equal part of the shard's history.

    The history starts where a hundredth of the events are past (an odd early one moves nothing) and
    the warm-up is over; it ends where the shortest horizon just fits before ``known_until``.
    """
    names = [modality.name for modality in profile.event_modalities]
    parts = [one.events[name].event_at for one in histories for name in names if name in one.events]
    latest = plan.known_until - plan.horizons[0] * MICROS_PER_DAY - 1
    instants = np.concatenate([np.zeros(0, np.int64), *parts])
    instants = instants[instants <= latest]
    if not len(instants):
        return []
    first = int(np.quantile(instants, 0.01, method="lower"))
    first = min(first + plan.warm_up_days * MICROS_PER_DAY, (first + latest) // 2)
    rng = np.random.default_rng([plan.seed, shard, 0])
    edges = np.linspace(first, latest, plan.num_cutoffs + 1)
    drawn = edges[:-1] + rng.random(plan.num_cutoffs) * np.diff(edges)
    return sorted({max(first, min(latest, int(one))) for one in drawn})


def _bits(key: bytes) -> int:
    return int(hashlib.sha256(key).hexdigest()[:8], 16)
