"""Who is asked: the ring of workers, the breaker of each, and where they are found."""

import threading
import time
from collections import Counter

import pytest

from qanchor_plugin.backend.breaker import WorkerBreaker
from qanchor_plugin.backend.discovery import DnsName, StaticList, discovery_of
from qanchor_plugin.backend.hedge_budget import HedgeBudget
from qanchor_plugin.backend.ring import WorkerRing
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.errors import BackendError

WORKERS = ("a:1", "b:1", "c:1", "d:1")
USERS = [f"user-{number}".encode() for number in range(2_000)]


def test_users_are_spread_over_the_workers_within_a_factor_of_two():
    ring = WorkerRing(WORKERS)
    shares = Counter(ring.home(user) for user in USERS)
    assert set(shares) == set(WORKERS)
    assert min(shares.values()) > 250
    assert max(shares.values()) < 1_000


def test_only_a_lost_workers_users_move_and_they_move_to_their_next_in_turn():
    before, after = WorkerRing(WORKERS), WorkerRing(WORKERS[:-1])
    moved = [user for user in USERS if before.home(user) != after.home(user)]
    assert moved == [user for user in USERS if before.home(user) == "d:1"]
    assert all(before.order(user)[1] == after.home(user) for user in moved)


def test_the_order_has_every_worker_once_and_starts_at_home():
    ring = WorkerRing(WORKERS)
    for user in USERS[:50]:
        assert sorted(ring.order(user)) == sorted(WORKERS)
        assert ring.order(user)[0] == ring.home(user)


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_trial_through():
    breaker = WorkerBreaker(failures=3, seconds=0.1)
    for outcome in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        outcome()
    assert breaker.admits()
    breaker.failed()
    assert breaker.is_open
    assert not breaker.admits()
    time.sleep(0.12)
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    breaker.failed()
    assert not breaker.admits()
    time.sleep(0.12)
    assert breaker.admits()
    breaker.succeeded()
    assert [breaker.admits() for _ in range(3)] == [True, True, True]


def test_a_late_answer_counts_only_when_the_worker_answered_nobody_meanwhile():
    breaker = WorkerBreaker(failures=1, seconds=60)
    began = time.monotonic() - 1
    breaker.succeeded()
    breaker.late(began)
    assert breaker.admits()
    time.sleep(0.15)
    breaker.late(time.monotonic() - 0.05)
    assert breaker.admits()
    breaker.late(time.monotonic() - 0.12)
    assert not breaker.admits()


def test_a_trial_without_an_outcome_is_given_to_another_call():
    breaker = WorkerBreaker(failures=1, seconds=0.05)
    breaker.failed()
    time.sleep(0.06)
    assert breaker.admits()
    assert not breaker.admits()
    breaker.released()
    assert breaker.admits()


def test_second_calls_are_a_tenth_of_the_calls_after_a_first_few():
    budget = HedgeBudget(share=0.1, burst=3)
    assert [budget.takes_one() for _ in range(4)] == [True, True, True, False]
    for _ in range(11):
        budget.called()
    assert [budget.takes_one() for _ in range(2)] == [True, False]


def test_a_list_is_what_it_is():
    assert StaticList(("b:1", "a:1", "b:1")).addresses(seconds=0) == ("a:1", "b:1")


def test_a_name_is_looked_up_again_and_a_failure_keeps_what_was_known():
    answers = [["10.0.0.1:1"], OSError("no route"), ["10.0.0.2:1", "10.0.0.1:1"]]
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        found = answers[min(len(asked), len(answers)) - 1]
        if isinstance(found, OSError):
            raise found
        return found

    name = DnsName("workers:8815", every_seconds=0.02, resolve=resolve)
    assert name.addresses(seconds=5) == ("10.0.0.1:1",)
    seen = {name.addresses(seconds=5)}
    deadline = time.monotonic() + 10
    while ("10.0.0.1:1", "10.0.0.2:1") not in seen and time.monotonic() < deadline:
        time.sleep(0.01)
        seen.add(name.addresses(seconds=5))
    assert seen == {("10.0.0.1:1",), ("10.0.0.1:1", "10.0.0.2:1")}
    assert len(asked) >= 3
    assert set(asked) == {("workers", 8815)}


def test_a_resolver_that_hangs_costs_the_callers_own_time_and_no_more():
    release = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        release.wait(10)
        return ["10.0.0.1:1"]

    name = DnsName("workers:8815", every_seconds=60, resolve=resolve)
    started = time.monotonic()
    with pytest.raises(BackendError, match=r"'workers:8815' gives no address"):
        name.addresses(seconds=0.1)
    assert time.monotonic() - started < 2
    release.set()
    assert name.addresses(seconds=5) == ("10.0.0.1:1",)


def test_the_systems_resolver_finds_loopback():
    found = discovery_of(WorkerSettings(dns="localhost:8815")).addresses(seconds=10)
    assert set(found) <= {"127.0.0.1:8815", "[::1]:8815"}
    assert found
