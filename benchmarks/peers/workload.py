"""What every peer is asked, and how it is timed; numpy only, for it runs in each peer's own environment.

A user is ``prefix`` token ids, a query 20 of them and one that stands for ``<USER_EMB>``; a peer answers
with the last hidden state. Every repetition has users and queries never seen before, so that a cache helps
within a repetition and not across.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

QUERY_TOKENS = 20
ALIKE_TOKENS = 5
"""What queries of the cases ``alike`` begin with: a quarter, as the example store's seven scenarios do."""
VOCABULARY = 150_000
USER_EMB = 7
MOST_ANSWERS = 100
LONG_SECONDS = 20
"""A repetition this long needs no warm-up before it and no other after it."""


class Peer(Protocol):
    """A model that is loaded. Users and queries are rows of token ids; answers are on the CPU, so that a
    device's work is done when a call returns."""

    def fresh(self, users: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """(U, Q, X): every query of users never seen before."""
        ...

    def keep(self, user: np.ndarray) -> None:
        """The user's prefix is cached, however the peer does that."""
        ...

    def more(self, queries: np.ndarray) -> np.ndarray:
        """(Q, X): new queries of the user kept last."""
        ...


def drawn(kind: str, count: int, length: int, seed: int, *, alike: int = 0) -> np.ndarray:
    """(count, length) token ids, the first ``alike`` the same for all; queries end with ``USER_EMB``.
    Of another length they begin otherwise: a cache must not find the users of a shorter prefix."""
    random = np.random.default_rng([len(kind), seed, alike, length])
    ids = random.integers(256, VOCABULARY, (count, length))
    ids[:, :alike] = ids[0, :alike]
    return np.concatenate([ids, np.full((count, 1), USER_EMB)], 1) if kind == "query" else ids


def measure(peer: Peer, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """One record a figure: its case, and the seconds of each repetition.

    The first repetition is a warm-up and left out, unless it took so long that it is the only one.

    Args:
        peer: loaded.
        asked: ``prefix``, ``users`` (fewer where they would ask for more than MOST_ANSWERS embeddings),
            ``queries`` (numbers of them), ``alike`` (numbers of queries that begin alike), ``repeats`` and
            ``seed``.
    """
    prefix, seeds = asked["prefix"], [asked["seed"] * 100 + one for one in range(asked["repeats"] + 1)]
    users = [drawn("user", asked["users"], prefix, seed) for seed in seeds]
    found = []

    def time_each(
        case: str, num_queries: int, call: Callable[[int, np.ndarray], Any], num_users: int
    ) -> None:
        seconds: list[float] = []
        alike = ALIKE_TOKENS if case.endswith("alike") else 0
        for number, seed in enumerate(seeds):
            queries = drawn("query", num_queries, QUERY_TOKENS, seed, alike=alike)
            seconds.append(seconds_of(call, number, queries))
            if sum(seconds) > LONG_SECONDS:
                break
        found.append(
            {
                "case": case,
                "queries": num_queries,
                "users": num_users,
                "seconds": seconds[1:] or seconds,
                "prefix": prefix,
            }
        )

    time_each("full", 1, lambda n, asked: peer.fresh(users[n][:1] + 1, asked), 1)
    sizes = [("", one) for one in asked["queries"]] + [("-alike", one) for one in asked["alike"]]
    for shift, (kind, number) in enumerate(sizes):
        num_users = max(1, min(asked["users"], MOST_ANSWERS // number))
        few = [one[:num_users] for one in users]
        time_each(f"batch{kind}", number, partial(_fresh, peer, few, 2 + shift), num_users)
    peer.keep(users[0][0])
    for kind, number in sizes:
        time_each(f"more{kind}", number, lambda n, asked: peer.more(asked), 1)
    return found


def agreement(peer: Peer, asked: dict[str, Any]) -> list[float]:
    """The first user's first state, for comparing peers with each other."""
    user, query = drawn("user", 1, asked["prefix"], 1), drawn("query", 2, QUERY_TOKENS, 1)
    state = np.asarray(peer.fresh(user, query), np.float64)[0, 1]
    return (state / np.linalg.norm(state)).tolist()


def serve(load: Callable[[str, str, str], Peer]) -> None:
    """Prints one JSON line: what the peer measured of the workload in the first argument."""
    asked = json.loads(sys.argv[1])
    peer = load(asked["folder"], asked["dtype"], asked["device"])
    records = []
    for prefix in asked["prefixes"]:
        records += measure(peer, {**asked, "prefix": prefix})
    state = agreement(peer, {**asked, "prefix": asked["prefixes"][0]})
    print("RESULT " + json.dumps({"records": records, "state": state}), flush=True)


def _fresh(peer: Peer, users: list[np.ndarray], shift: int, number: int, queries: np.ndarray) -> None:
    peer.fresh(users[number] + shift, queries)


def seconds_of(call: Callable[..., Any], *arguments: Any) -> float:
    """How long the call took."""
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started
