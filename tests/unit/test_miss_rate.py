"""Misses beyond the rate are not asked of the backend; time gives the allowance back."""

from collections.abc import Sequence
from typing import Any

import pytest

from qanchor_plugin.backend import Ask
from qanchor_plugin.errors import BackendError
from qanchor_plugin.feast_ext.miss_rate import RateLimitedMisses
from qanchor_plugin.feast_ext.online_misses import MissAnswerer
from tests.shop import PROFILE

ASKED = [Ask(profile=PROFILE, query="Will they buy wine?", engine="demo")]


class NoAnswers:
    """A backend that knows nobody, and counts who was asked for."""

    num_slots, warm_up_seconds = 4, 10.0

    def __init__(self) -> None:
        self.users: list[bytes] = []

    def prepare(self, asked: Sequence[Any]) -> None:
        """Nothing to load."""

    def embed(
        self, users: Sequence[bytes], cutoff: int, asked: Sequence[Any], *, seconds: float | None = None
    ) -> list[list[None]]:
        self.users += users
        return [[None] * len(asked) for _ in users]


def limited(per_second: float) -> tuple[RateLimitedMisses, NoAnswers, list[float]]:
    backend, now = NoAnswers(), [0.0]
    answerer = MissAnswerer(backend, max_compute_ms=5_000)  # type: ignore[arg-type]
    return RateLimitedMisses(answerer, per_second=per_second, clock=lambda: now[0]), backend, now


def test_a_second_s_allowance_is_answered_and_then_refused() -> None:
    misses, backend, now = limited(3)
    misses.answer([b"a", b"b"], 0, ASKED)
    misses.answer([b"c", b"d"], 0, ASKED)  # one is left: passed on whole, one is owed
    with pytest.raises(BackendError, match="more than 3 users a second missed"):
        misses.answer([b"e"], 0, ASKED)
    now[0] = 0.3  # 0.9 came back: still owing
    with pytest.raises(BackendError):
        misses.answer([b"e"], 0, ASKED)
    now[0] = 0.5
    misses.answer([b"f"], 0, ASKED)
    assert backend.users == [b"a", b"b", b"c", b"d", b"f"]


def test_what_was_not_used_is_not_saved_beyond_a_second() -> None:
    misses, backend, now = limited(2)
    now[0] = 100.0
    misses.answer([b"a", b"b"], 0, ASKED)
    with pytest.raises(BackendError):
        misses.answer([b"c"], 0, ASKED)
    assert backend.users == [b"a", b"b"]


def test_zero_is_no_limit() -> None:
    misses, backend, _ = limited(0)
    for _ in range(50):
        misses.answer([bytes([number]) for number in range(10)], 0, ASKED)
    assert len(backend.users) == 500
