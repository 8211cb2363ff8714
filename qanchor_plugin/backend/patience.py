"""How often a pool is asked again, and after which pause, when no worker answered."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay
from tenacity.wait import wait_random_exponential

from qanchor_plugin.errors import (
    BackendError,
    DeadlineError,
    OverloadedError,
    UnauthenticatedError,
    WrongEngineError,
)


class NobodyAskedError(BackendError):
    """Every worker is left alone for now, after failures in a row."""


HOPELESS = (DeadlineError, UnauthenticatedError, WrongEngineError)
"""Errors that a pause does not mend."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """What one request may cost in time.

    Attributes:
        seconds: all of it.
        hedge_seconds: when a second worker is asked as well.
        rounds: passes over the workers, those that found them full not counted.
        pause_seconds: of the first pause; doubled each time, with jitter.
        max_pause_seconds: of the longest.
        waits_for_workers: whether to wait for workers that are left alone (a job does, a person does not).
    """

    seconds: float
    hedge_seconds: float
    rounds: int
    pause_seconds: float
    max_pause_seconds: float
    waits_for_workers: bool
    started_at: float = field(default_factory=time.monotonic)

    @classmethod
    def online(cls, *, seconds: float, hedge_seconds: float) -> "Patience":
        """Somebody waits."""
        return cls(
            seconds=seconds,
            hedge_seconds=hedge_seconds,
            rounds=2,
            pause_seconds=0.05,
            max_pause_seconds=1.0,
            waits_for_workers=False,
        )

    @classmethod
    def batch(cls, *, seconds: float, hedge_seconds: float) -> "Patience":
        """A job can wait until a worker has been started again."""
        return cls(
            seconds=seconds,
            hedge_seconds=hedge_seconds,
            rounds=8,
            pause_seconds=0.5,
            max_pause_seconds=15.0,
            waits_for_workers=True,
        )

    @property
    def deadline(self) -> float:
        """By ``time.monotonic()``."""
        return self.started_at + self.seconds

    def repeat(self, ask: Callable[[], None]) -> None:
        """``ask`` has run without error, after pauses where they may help.

        Raises:
            BackendError: the last one, when no round or no time is left.
        """
        Retrying(
            retry=retry_if_exception(self._is_worth_a_pause),
            wait=self._pause,
            stop=lambda state: stop_before_delay(self.seconds)(state) or self._is_enough(state),
            reraise=True,
        )(ask)

    def _is_worth_a_pause(self, error: BaseException) -> bool:
        if isinstance(error, NobodyAskedError):
            return self.waits_for_workers
        return isinstance(error, BackendError) and not isinstance(error, HOPELESS)

    def _pause(self, state: RetryCallState) -> float:
        jitter = wait_random_exponential(multiplier=self.pause_seconds, max=self.max_pause_seconds)
        return max(jitter(state), getattr(_error(state), "retry_after_ms", 0) / 1000)

    def _is_enough(self, state: RetryCallState) -> bool:
        return state.attempt_number >= self.rounds and not isinstance(_error(state), OverloadedError)


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()
