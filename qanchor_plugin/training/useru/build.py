"""UserU pairs of users, batch by batch: D_future and D_uqa together."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qanchor_plugin.declare import Profile
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.sequence import UserHistory, slice_at
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from qanchor_plugin.training.useru.claims import Reflection, reflect
from qanchor_plugin.training.useru.evidence import Evidence, evidence_of
from qanchor_plugin.training.useru.future import DEFAULT_BINS, future_pair
from qanchor_plugin.training.useru.generator import Draft, Generator, Request
from qanchor_plugin.training.useru.pairs import Pair
from qanchor_plugin.training.useru.topics import TOPICS, Topic, is_about

Relevance = Callable[[Sequence[Topic], Evidence], Sequence[float]]
"""How much each topic concerns a user; higher is more."""


@dataclass(kw_only=True)
class PairCounts:
    """What became of what was asked; filled while the pairs are read.

    Attributes:
        num_users, num_cutoffs: users seen, and cutoffs with at least one visible event.
        num_future: D_future pairs.
        num_asked, num_uqa: D_uqa drafts asked for, and pairs that came of them.
        num_unusable: drafts that the generator could not give.
        num_unsupported: drafts of which no claim was supported.
        num_claims, num_corrected, num_dropped: claims checked, and by outcome.
    """

    num_users: int = 0
    num_cutoffs: int = 0
    num_future: int = 0
    num_asked: int = 0
    num_uqa: int = 0
    num_unusable: int = 0
    num_unsupported: int = 0
    num_claims: int = 0
    num_corrected: int = 0
    num_dropped: int = 0

    @property
    def yield_share(self) -> float:
        """D_uqa pairs for each draft asked for (0 to 1)."""
        return self.num_uqa / max(1, self.num_asked)

    @property
    def corrected_share(self) -> float:
        """Claims whose number was corrected (0 to 1)."""
        return self.num_corrected / max(1, self.num_claims)

    @property
    def dropped_share(self) -> float:
        """Claims that were dropped (0 to 1)."""
        return self.num_dropped / max(1, self.num_claims)


@dataclass(frozen=True, kw_only=True)
class PairPlan:
    """What to ask of each user.

    Attributes:
        known_until: pre-training sees nothing from this instant on (microseconds).
        num_cutoffs: cutoffs a user, spread over the user's own history.
        num_topics: D_uqa topics a cutoff, the most relevant first.
        num_absent: topics of those that the user shows nothing of ("no" is an answer, too).
        bins: time bins of D_future, in days.
        seed: moves cutoffs and the absent topics.
        users_per_batch: users whose drafts are asked for together.
    """

    known_until: int
    num_cutoffs: int = 4
    num_topics: int = 10
    num_absent: int = 2
    bins: tuple[int, ...] = DEFAULT_BINS
    seed: int = 0
    users_per_batch: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.num_absent <= self.num_topics or self.num_cutoffs < 1 or self.users_per_batch < 1:
            raise InputDataError(
                f"{self}: cutoffs and users_per_batch must be 1 or more, num_absent 0 to num_topics."
            )


def build_pairs(
    histories: Iterable[UserHistory],
    profile: Profile,
    text_of: Mapping[bytes, str],
    plan: PairPlan,
    generator: Generator,
    *,
    counts: PairCounts | None = None,
    relevance: Relevance | None = None,
) -> Iterator[Pair]:
    """Pairs of every user, streaming; ``counts`` is up to date once they are read.

    No pair reads an event from ``plan.known_until`` on; inputs are what is visible at its cutoff.
    """
    counts = PairCounts() if counts is None else counts
    relevance = relevance or keyword_relevance
    batch: list[tuple[UserHistory, Request]] = []
    for history in histories:
        counts.num_users += 1
        for cutoff in user_cutoffs(history, profile, plan):
            user_slice = slice_at(history, profile, cutoff)
            if not user_slice.num_events:
                continue
            counts.num_cutoffs += 1
            future = future_pair(
                history, profile, cutoff, text_of, known_until=plan.known_until, bins=plan.bins
            )
            if future is not None:
                counts.num_future += 1
                yield future
            evidence = evidence_of(user_slice, text_of)
            batch += [
                (history, Request(topic=one, evidence=evidence)) for one in _topics(evidence, plan, relevance)
            ]
        if len(batch) >= plan.users_per_batch * plan.num_cutoffs * plan.num_topics:
            yield from _grounded(batch, generator, counts)
            batch = []
    yield from _grounded(batch, generator, counts)


def user_cutoffs(history: UserHistory, profile: Profile, plan: PairPlan) -> list[int]:
    """At most ``num_cutoffs`` instants inside the user's history, ascending, one in each equal part.

    The last possible one leaves D_future its whole horizon before ``known_until``.
    """
    parts = [history.events[m.name].event_at for m in profile.event_modalities if m.name in history.events]
    instants = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    latest = plan.known_until - plan.bins[-1] * MICROS_PER_DAY - 1
    instants = instants[instants <= latest]
    if not len(instants):
        return []
    rng = np.random.default_rng([plan.seed, *history.user])
    first = int(instants.min())
    edges = np.linspace(first, latest, plan.num_cutoffs + 1)
    drawn = edges[:-1] + rng.random(plan.num_cutoffs) * np.diff(edges)
    return sorted({max(first, min(latest, int(one))) for one in drawn})


def keyword_relevance(topics: Sequence[Topic], evidence: Evidence) -> list[float]:
    """log(1 + events) of the facts that a topic's keywords name, recent ones twice."""
    return [
        float(
            sum(np.log1p(f.count) + np.log1p(f.count_30) for f in evidence.facts if is_about(topic, f.about))
        )
        for topic in topics
    ]


def _topics(evidence: Evidence, plan: PairPlan, relevance: Relevance) -> list[Topic]:
    """The most relevant topics, and some of none at all (drawn by user and cutoff)."""
    scored = sorted(
        zip(relevance(TOPICS, evidence), TOPICS, strict=True), key=lambda one: (-one[0], one[1].name)
    )
    relevant = [topic for score, topic in scored if score > 0][: plan.num_topics - plan.num_absent]
    absent = [topic for score, topic in scored if score <= 0]
    rng = np.random.default_rng([plan.seed, evidence.cutoff % 2**32, *evidence.user])
    num_absent = plan.num_absent if evidence.complete else 0
    return relevant + [absent[place] for place in rng.permutation(len(absent))[:num_absent]]


def _grounded(
    batch: Sequence[tuple[UserHistory, Request]], generator: Generator, counts: PairCounts
) -> Iterator[Pair]:
    drafts = generator.generate([request for _, request in batch]) if batch else []
    for (history, request), draft in zip(batch, drafts, strict=True):
        counts.num_asked += 1
        if draft is None:
            counts.num_unusable += 1
            continue
        reflection = reflect(draft.claims, request.evidence)
        counts.num_claims += reflection.num_checked
        counts.num_corrected += reflection.num_corrected
        counts.num_dropped += reflection.num_dropped
        if not reflection.claims:
            counts.num_unsupported += 1
            continue
        counts.num_uqa += 1
        yield _pair(history, request, draft, reflection, generator.generator_id)


def _pair(
    history: UserHistory, request: Request, draft: Draft, reflection: Reflection, generator: str
) -> Pair:
    return Pair(
        user=history.user,
        user_key=history.user_key,
        cutoff=request.evidence.cutoff,
        kind="uqa",
        topic=request.topic.name,
        query=draft.query,
        answer=reflection.answer,
        generator=generator,
        evidence=request.evidence.to_dict(),
    )
