"""UserU pairs of one shard of users: ``future``, ``uqa`` and ``outcome`` together."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from qanchor_plugin.declare import Profile
from qanchor_plugin.sequence import UserHistory, slice_at
from qanchor_plugin.training.useru.claims import Reflection, reflect
from qanchor_plugin.training.useru.counts import PairCounts
from qanchor_plugin.training.useru.evidence import Evidence, evidence_of
from qanchor_plugin.training.useru.future import future_pair
from qanchor_plugin.training.useru.generator import Draft, Generator, Request
from qanchor_plugin.training.useru.outcome import outcome_pairs
from qanchor_plugin.training.useru.pairs import Pair
from qanchor_plugin.training.useru.plan import PairPlan, is_held_out, known_before, shard_cutoffs
from qanchor_plugin.training.useru.topics import TOPICS, Topic, topics_about

Relevance = Callable[[Sequence[Topic], Evidence], Sequence[float]]
"""How much each topic concerns a user; higher is more."""
SHOWN_FACTS = 12
"""Facts kept beside a ``uqa`` pair: those of its topic first."""


def build_pairs(
    histories: Iterable[UserHistory],
    profile: Profile,
    text_of: Mapping[bytes, str],
    plan: PairPlan,
    generator: Generator,
    *,
    shard: int = 0,
    counts: PairCounts | None = None,
    relevance: Relevance | None = None,
) -> Iterator[Pair]:
    """Pairs of a shard's users, streaming; ``counts`` is up to date once they are read.

    No pair reads an event from ``plan.known_until`` on; inputs are what is visible at its cutoff.

    Args:
        histories: all users of the shard: they share cutoffs and outcome questions.
        text_of: text of every event and group id in them.
        shard: its number.
    """
    counts = PairCounts() if counts is None else counts
    users = _known(histories, plan)
    counts.num_users += len(users)
    counts.num_held_out += sum(is_held_out(one.user) for one in users)
    batch: list[tuple[UserHistory, Request]] = []
    asked_at: dict[int, list[int]] = {}
    for number, cutoff, evidence in _visible(users, profile, text_of, plan, shard):
        history = users[number]
        asked_at.setdefault(cutoff, []).append(number)
        counts.num_cutoffs += 1
        future = future_pair(
            history, profile, cutoff, text_of, known_until=plan.known_until, bins=plan.bins, shard=shard
        )
        if future is not None:
            counts.num_future += 1
            yield future
        batch += [(history, one) for one in _requests(evidence, plan, relevance)]
        if len(batch) >= plan.users_per_batch * plan.num_cutoffs * plan.num_topics > 0:
            yield from _grounded(batch, generator, counts, shard)
            batch = []
    yield from _grounded(batch, generator, counts, shard)
    for pair in outcome_pairs(users, profile, text_of, plan, shard=shard, asked_at=asked_at):
        counts.num_outcome += 1
        yield pair


def requests_of(
    histories: Iterable[UserHistory],
    profile: Profile,
    text_of: Mapping[bytes, str],
    plan: PairPlan,
    *,
    shard: int = 0,
) -> Iterator[Request]:
    """Every draft that :func:`build_pairs` would ask its generator for, in that order."""
    for _, _, evidence in _visible(_known(histories, plan), profile, text_of, plan, shard):
        yield from _requests(evidence, plan, None)


def keyword_relevance(topics: Sequence[Topic], evidence: Evidence) -> list[float]:
    """log(1 + events) of the facts that a topic's keywords name, recent ones twice."""
    scores: dict[str, float] = {}
    for fact in evidence.facts:
        score = float(np.log1p(fact.count) + np.log1p(fact.count_30))
        for name in topics_about(fact.about):
            scores[name] = scores.get(name, 0.0) + score
    return [scores.get(topic.name, 0.0) for topic in topics]


def _known(histories: Iterable[UserHistory], plan: PairPlan) -> list[UserHistory]:
    """The users by key, nothing in them at or after ``known_until``."""
    return sorted((known_before(one, plan.known_until) for one in histories), key=lambda one: one.user)


def _visible(
    users: Sequence[UserHistory],
    profile: Profile,
    text_of: Mapping[bytes, str],
    plan: PairPlan,
    shard: int,
) -> Iterator[tuple[int, int, Evidence]]:
    """Number, cutoff and evidence of every user at every cutoff where something is visible."""
    cutoffs = shard_cutoffs(users, profile, plan, shard=shard)
    for number, history in enumerate(users):
        for cutoff in cutoffs:
            user_slice = slice_at(history, profile, cutoff)
            if user_slice.num_events:
                yield number, cutoff, evidence_of(user_slice, text_of)


def _requests(evidence: Evidence, plan: PairPlan, relevance: Relevance | None) -> list[Request]:
    """The most relevant topics, and some of none at all (drawn by user and cutoff)."""
    if not plan.num_topics:
        return []
    scores = (relevance or keyword_relevance)(TOPICS, evidence)
    scored = sorted(zip(scores, TOPICS, strict=True), key=lambda one: (-one[0], one[1].name))
    relevant = [topic for score, topic in scored if score > 0][: plan.num_topics - plan.num_absent]
    absent = [topic for score, topic in scored if score <= 0]
    rng = np.random.default_rng([plan.seed, evidence.cutoff % 2**32, *evidence.user])
    num_absent = plan.num_absent if evidence.complete else 0
    chosen = relevant + [absent[place] for place in rng.permutation(len(absent))[:num_absent]]
    return [Request(topic=topic, evidence=evidence) for topic in chosen]


def _grounded(
    batch: Sequence[tuple[UserHistory, Request]], generator: Generator, counts: PairCounts, shard: int
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
        yield _pair(history, request, draft, reflection, generator.generator_id, shard)


def _pair(
    history: UserHistory,
    request: Request,
    draft: Draft,
    reflection: Reflection,
    generator: str,
    shard: int,
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
        evidence=request.evidence.to_dict(topic=request.topic.name, most=SHOWN_FACTS),
        shard=shard,
    )
