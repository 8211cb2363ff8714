"""Which requests go through the engine together, and when: the real queue over a stand-in for the engine."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from qanchor_plugin.backend.protocol import Answer
from qanchor_plugin.backend.wire import PrefixRow
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import OverloadedError
from qanchor_plugin.prefix_store import make_entry
from qanchor_plugin.worker.batch import Batch
from qanchor_plugin.worker.batcher import Batcher
from qanchor_plugin.worker.config import Limits, WorkerConfig
from qanchor_plugin.worker.metrics import Metrics
from qanchor_plugin.worker.request import QUERY_TOKENS, Request, TokenEstimate, now, pieces_of
from tests.shop import PROFILE
from tests.worker.asking import ask, header, until

A, B, C = ask("A?"), ask("B?"), ask("C?")
ENGINES = object()


def request(users: str, asks=(A,), *, cutoff: int = 1, **changed) -> Request:
    """Of one-letter users."""
    return Request(
        header=header(asks, cutoff=cutoff, **changed),
        rows=[(user.encode(), cutoff) for user in users],
        asks=tuple(asks),
        serving=ENGINES,
        arrived=now(),
        deadline=now() + 60,
    )


def whole(made: Request):
    (piece,) = pieces_of(made, TokenEstimate(), budget=10**9)
    return piece


def answer(user: bytes, query: str) -> Answer:
    """Says whom and what it was computed for."""
    return Answer(
        embedding=np.zeros(128, np.float32),
        embedding_id=f"{user.decode()}{query}",
        cutoff=1,
        as_of=None,
        num_events=3,
    )


def computed(batch: Batch) -> None:
    batch.spread(
        [[answer(user, ask.query) for ask in batch.asks.values()] for user, _ in batch.rows.values()]
    )


def said(made: Request) -> list[str]:
    return [one.embedding_id for _, _, one in sorted(made.answers, key=lambda row: row[:2])]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (request("ab"), request("cd"), True),  # the same question of others
        (request("ab", (A,)), request("ab", (B,)), True),  # another question of the same
        (request("ab"), request("ab"), True),  # the same at once: computed once
        (request("a", cutoff=1), request("b", cutoff=2), True),  # each at its own instant
        (request("a", cutoff=1), request("a", cutoff=2), False),  # one user at two instants
        (request("abcd", (A,)), request("efgh", (B,)), False),  # twice the work that was asked for
        (request("abcd", (A, B, C)), request("a", (A,)), True),  # part of it
        (request("a"), request("b", (ask("A?", engine="other"),)), False),  # another engine
    ],
)
def test_requests_go_together_where_that_wastes_little(first, second, together):
    batch = Batch(whole(first))
    assert batch.take(whole(second), budget=10**9) is together
    computed(batch)
    assert said(first) == [f"{user.decode()}{one.query}" for user, _ in first.rows for one in first.asks]
    assert first.done.is_set()
    if together:
        assert said(second) == [
            f"{user.decode()}{one.query}" for user, _ in second.rows for one in second.asks
        ]
    assert second.done.is_set() is together


def test_a_batch_keeps_to_its_tokens():
    batch = Batch(whole(request("a")))
    assert not batch.take(whole(request("b")), budget=batch.tokens)
    assert batch.take(whole(request("b")), budget=2 * batch.tokens)


def test_a_request_is_cut_by_tokens_and_put_together_again():
    made = request("abcde")
    each = PROFILE.max_tokens + QUERY_TOKENS
    pieces = pieces_of(made, TokenEstimate(), budget=2 * each)
    assert [(one.start, one.stop, one.tokens) for one in pieces] == [
        (0, 2, 2 * each),
        (2, 4, 2 * each),
        (4, 5, each),
    ]
    for piece in reversed(pieces):
        assert not made.done.is_set()
        computed(Batch(piece))
    assert said(made) == ["aA?", "bA?", "cA?", "dA?", "eA?"]
    assert made.done.is_set()


def test_tokens_of_a_user_are_learnt_from_the_answers():
    estimate = TokenEstimate()
    assert estimate.of((b"a", 1), [A, B]) == PROFILE.max_tokens + 2 * QUERY_TOKENS
    estimate.learn(A, [answer(b"a", "A?"), None])
    assert estimate.of((b"a", 1), [A]) == 3 + 4 * 2 + 1 + QUERY_TOKENS


@pytest.fixture
def batcher() -> Iterator[Callable[..., tuple[Batcher, list[Batch]]]]:
    """The queue, and the batches that came out of it; computing one takes ``seconds`` a token."""
    made: list[Batcher] = []

    def start(seconds: float = 0.0, **changed) -> tuple[Batcher, list[Batch]]:
        batches: list[Batch] = []

        def compute(batch: Batch) -> None:
            batches.append(batch)
            time.sleep(seconds * batch.tokens)
            computed(batch)

        config = WorkerConfig(settings=Settings(lake="/none"), engines=("demo",), **changed)
        made.append(Batcher(config, compute, Metrics()))
        return made[-1], batches

    yield start
    for one in made:
        one.close()


def test_batch_requests_go_in_large_calls_until_an_online_one_comes(batcher):
    each = PROFILE.max_tokens + QUERY_TOKENS
    queue, batches = batcher(seconds=0.05 / each, batch_tokens=8 * each, batch_seconds=0.1, max_wait_ms=0.0)
    queue._token_seconds = 0.05 / each  # learnt
    alone = request("abcdefgh", priority="batch")
    queue.submit(alone)
    assert alone.done.wait(10)
    assert [len(batch.rows) for batch in batches] == [8]
    batches.clear()
    beside, online = request("abcdefgh", priority="batch"), request("z")
    online_again = request("y")
    queue.submit(online)
    assert online.done.wait(10)
    queue.submit(beside)
    until(lambda: len(batches) == 2)
    queue.submit(online_again)
    started = time.monotonic()
    assert online_again.done.wait(10)
    assert time.monotonic() - started < 0.35  # one small call of the batch request, not all of it
    assert beside.done.wait(10)
    assert max(len(batch.rows) for batch in batches) <= 3
    assert said(beside) == [f"{user}A?" for user in "abcdefgh"]


def test_what_nobody_waits_for_is_not_computed(batcher):
    queue, batches = batcher(seconds=0.0, max_wait_ms=300.0)
    gone, kept = request("a"), request("b", cutoff=2)
    queue.submit(gone)
    queue.submit(kept)
    queue.drop(gone)
    assert kept.done.wait(10)
    assert [list(batch.rows) for batch in batches] == [[(b"b", 2, "")]]


def test_a_fault_outside_the_engine_fails_its_batch_and_no_other(batcher):
    queue, _ = batcher(max_wait_ms=0.0)
    compute, queue._compute = queue._compute, lambda _: 1 / 0
    broken, sound = request("a"), request("b")
    queue.submit(broken)
    assert broken.done.wait(10)
    assert isinstance(broken.error, ZeroDivisionError)
    queue._compute = compute
    queue.submit(sound)
    assert sound.done.wait(10)
    assert said(sound) == ["bA?"]
    until(lambda: queue.num_waiting() == 0)


def test_closing_fails_what_still_waited(batcher):
    queue, _ = batcher(max_wait_ms=10_000.0)
    left = request("a")
    queue.submit(left)
    queue.close()
    assert left.done.is_set()
    assert type(left.error).__name__ in ("DrainingError", "NoneType")
    assert (left.error is None) == (said(left) == ["aA?"])


def test_the_queue_is_bounded_in_requests_rows_and_bytes(batcher):
    def sent(size: int) -> Request:
        entry = make_entry(
            user=b"u",
            prefix_id="p",
            visible_digest="v",
            as_of=None,
            num_events=1,
            tokens=np.zeros((size, 4), np.float32),
            tokens_dtype="float32",
            positions=np.zeros(size, np.int32),
        )
        made = request("")
        made.rows = [PrefixRow(entry=entry, cutoff=1)]
        made.__post_init__()
        return made

    for limits, second in (
        (Limits(queue_requests=1), request("b")),
        (Limits(queue_rows=3), request("bcd")),
        (Limits(queue_bytes=100), sent(6)),
    ):
        queue, _ = batcher(max_wait_ms=10_000.0, limits=limits)
        queue.submit(request("a"))
        with pytest.raises(OverloadedError, match="the queue is full"):
            queue.submit(second)
    queue, _ = batcher(max_wait_ms=10_000.0, limits=Limits(queue_rows=3))
    queue.submit(request("abcdef"))  # alone it is taken, however large
