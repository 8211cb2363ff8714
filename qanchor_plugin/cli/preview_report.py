"""What a preview measures of a scenario over a sample of users: pure of input and output."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin.cli.instants import from_micros, iso
from qanchor_plugin.cli.preview_sample import Sample, TextVectors
from qanchor_plugin.declare import Profile, Scenario
from qanchor_plugin.sequence import MAX_TEXT_CHARS, UserSlice, slice_at

NEARLY_IDENTICAL = 0.999
MISSING_SHARE = 0.5
MORE_QUERIES = 16
TIMED_USERS = 8
REPEATS = 5
SHOWN_NEIGHBOURS = 3


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Measured on this machine, per user.

    Attributes:
        users: how many were embedded together.
        build_ms: soft tokens of a prefix, event vectors given.
        prefill_ms: the prefix through the backbone, without any query.
        one_more_ms: one more scenario over the same prefix.
        one_more_share: that, as a share of the prefill.
    """

    users: int
    build_ms: float
    prefill_ms: float
    one_more_ms: float
    one_more_share: float | None


def preview_report(
    engine: Any, scenario: Scenario, profile: Profile, sample: Sample, cutoff: int
) -> dict[str, Any]:
    """Prefix, truncation, tokens, time, neighbours and warnings, as JSON-like values.

    Args:
        engine: a ``QueryAnchorEngine``.
        scenario: what is asked.
        profile: of whom.
        sample: some users.
        cutoff: microseconds since 1970 UTC.
    """
    slices = [slice_at(history, profile, cutoff) for history in sample.histories]
    vectors = TextVectors(sample.texts, engine)
    prefixes = engine.build_prefixes(slices, vectors)
    prompt = _soft_prompt(scenario)
    prepared = engine.prepare_query(scenario.query, prompt)
    embeddings = engine.embed(prefixes, [prepared], [cutoff] * len(prefixes))[:, 0]
    shown = max(range(len(slices)), key=lambda row: slices[row].num_events)
    lengths = [len(prefix.positions) for prefix in prefixes]
    return {
        "scenario": scenario.name,
        "query": scenario.query,
        "engine": engine.config.name,
        "cutoff": iso(from_micros(cutoff)),
        "sample": {"users": len(slices), "read_from": sample.place},
        "user": {"key": slices[shown].user_key, "num_events": slices[shown].num_events},
        "prefix": [asdict(line) for line in engine.preview_prefix(slices[shown], sample.texts)],
        "events": {"median": statistics.median(one.num_events for one in slices)},
        "tokens": {"median": statistics.median(lengths), "max": max(lengths)},
        "query_tokens": {"count": engine.count_query_tokens(scenario.query), "max": engine.max_query_tokens},
        "truncated": truncated(slices, profile, sample),
        "timing": asdict(_timing(engine, slices, vectors, scenario, prompt, cutoff)),
        "neighbours": neighbours([one.user_key for one in slices], embeddings),
        "warnings": warnings(slices, profile, embeddings),
    }


def truncated(slices: Sequence[UserSlice], profile: Profile, sample: Sample) -> dict[str, Any]:
    """What the sampled users' prefixes leave out, and for how many users."""
    cut: dict[str, Any] = {}
    for place, modality in enumerate(profile.modalities):
        parts = [one.modalities[place] for one in slices]
        dropped = [part.num_visible - len(part.text_id) for part in parts]
        cut[modality.name] = {
            "max_events": modality.max_events,
            "users": sum(number > 0 for number in dropped),
            "events": sum(dropped),
        }
    over = [one.num_groups_visible - len(one.groups) for one in slices]
    return {
        "events": cut,
        "groups": {
            "max_groups": profile.max_groups,
            "users": sum(number > 0 for number in over),
            "groups": sum(over),
        },
        "texts": sum(len(text) >= MAX_TEXT_CHARS for text in sample.texts.values()),
        "max_text_chars": MAX_TEXT_CHARS,
    }


def neighbours(keys: Sequence[str], embeddings: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
    """Each user's nearest others in the sample, by cosine; (N, 128) float32, L2-normalised."""
    cosine = embeddings @ embeddings.T
    np.fill_diagonal(cosine, -np.inf)
    found = []
    for row, key in enumerate(keys):
        nearest = np.argsort(-cosine[row], kind="stable")[: min(SHOWN_NEIGHBOURS, len(keys) - 1)]
        close = [{"user": keys[other], "cosine": round(float(cosine[row, other]), 4)} for other in nearest]
        found.append({"user": key, "nearest": close})
    return found


def warnings(slices: Sequence[UserSlice], profile: Profile, embeddings: npt.NDArray[np.float32]) -> list[str]:
    """What a person should see before registering."""
    found = []
    silent = sum(one.num_events == 0 for one in slices)
    if silent == len(slices):
        found.append(
            "no sampled user has a visible event at the cutoff: data that ended need 'qanchor: clock:' in "
            "feature_store.yaml, or a longer window in the profile."
        )
    elif silent:
        found.append(f"{silent} of {len(slices)} users have no visible event: they get the empty embedding.")
    for place, modality in enumerate(profile.modalities):
        missing = sum(one.modalities[place].num_visible == 0 for one in slices)
        if silent < len(slices) and missing > MISSING_SHARE * len(slices):
            found.append(f"{modality.name} says nothing of {missing} of {len(slices)} users at the cutoff.")
    if len(embeddings) > 2:
        pairs = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
        if float(np.median(pairs)) > NEARLY_IDENTICAL:
            found.append(
                f"the embeddings are nearly identical (median cosine {np.median(pairs):.4f}): the query's "
                "words may not occur in the event texts."
            )
    return found


def _timing(
    engine: Any,
    slices: Sequence[UserSlice],
    vectors: TextVectors,
    scenario: Scenario,
    prompt: Any,
    cutoff: int,
) -> Timing:
    users = sorted(slices, key=lambda one: -one.num_events)[:TIMED_USERS]
    prefixes = engine.build_prefixes(users, vectors)
    queries = [engine.prepare_query(text, prompt) for text in rotations(scenario.query, 1 + MORE_QUERIES)]
    cutoffs = [cutoff] * len(users)
    (build,) = _least_seconds(lambda: engine.build_prefixes(users, vectors))
    one, many = _least_seconds(
        lambda: engine.embed(prefixes, queries[:1], cutoffs), lambda: engine.embed(prefixes, queries, cutoffs)
    )
    more = max(0.0, many - one) / MORE_QUERIES
    prefill = max(0.0, one - more)
    a_user = 1000 / len(users)
    return Timing(
        users=len(users),
        build_ms=build * a_user,
        prefill_ms=prefill * a_user,
        one_more_ms=more * a_user,
        one_more_share=more / prefill if prefill else None,
    )


def rotations(query: str, number: int) -> list[str]:
    """The query and others of its very words, so as many tokens each: what more scenarios would cost."""
    words = query.split()
    turned = [" ".join(words[turn:] + words[:turn]) for turn in range(len(words))]
    return [turned[place % len(turned)] for place in range(number)]


def _least_seconds(*calls: Callable[[], object]) -> list[float]:
    """The least wall time of each call, in turn: a busy moment of the machine hits all alike."""
    spent: list[list[float]] = [[] for _ in calls]
    for repeat in range(1 + REPEATS):
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if repeat:
                spent[place].append(time.perf_counter() - start)
    return [min(times) for times in spent]


def _soft_prompt(scenario: Scenario) -> Any:
    if scenario.soft_prompt is None:
        return None
    from qanchor_plugin.engine import SoftPrompt

    return SoftPrompt.load(scenario.soft_prompt)
