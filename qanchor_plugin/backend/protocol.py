"""What a backend is asked and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from qanchor_plugin.declare import Profile, Scenario


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One anchor query to put to users.

    Attributes:
        profile: whose behaviour it is asked of.
        query: the question.
        engine: preset or folder.
        engine_digest: identity the engine must have; None accepts what ``engine`` names now.
        soft_prompt: folder of a tuned soft prompt, or None.
        scenario_id: ``identity.scenario_identity`` that answers must carry; None for a query that
            nobody registered.
    """

    profile: Profile
    query: str
    engine: str
    engine_digest: str | None = None
    soft_prompt: str | None = None
    scenario_id: str | None = None

    @classmethod
    def of(cls, scenario: Scenario, profile: Profile, *, scenario_id: str, default_engine: str) -> "Ask":
        """The question that a registered scenario puts."""
        return cls(
            profile=profile,
            query=scenario.query,
            engine=scenario.engine or default_engine,
            engine_digest=scenario.engine_digest,
            soft_prompt=scenario.soft_prompt,
            scenario_id=scenario_id,
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One user's embedding for one query.

    Attributes:
        embedding: (128,) float32, L2-normalised.
        embedding_id: identity of everything that made it.
        cutoff: instant after which nothing was seen, microseconds since 1970 UTC.
        as_of: newest event seen, likewise; None without one.
        num_events: visible events.
    """

    embedding: npt.NDArray[np.float32]
    embedding_id: str
    cutoff: int
    as_of: int | None
    num_events: int


class Backend(Protocol):
    """How a caller reaches an engine: in process, or over a wire.

    Attributes:
        warm_up_seconds: bound on a process's first call of an engine, which loads it; 0 when nothing is
            loaded here.
        num_slots: calls that it takes at once.
    """

    warm_up_seconds: float
    num_slots: int

    def prepare(self, asked: Sequence[Ask]) -> None:
        """The engines of these queries are loaded afterwards: once a process, seconds the first time.

        Raises:
            QAnchorError: an engine cannot be had.
        """

    def embed(
        self, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask], *, seconds: float | None = None
    ) -> list[list[Answer | None]]:
        """Every user's answer to every query (users x asked); None for a user never seen.

        Args:
            users: serialised entity keys, distinct.
            cutoff: nothing after this instant is seen; microseconds since 1970 UTC.
            asked: the queries.
            seconds: how long the caller waits; None for a caller that has time.

        Raises:
            QAnchorError: the lake, the engine or the wire failed.
        """

    def close(self) -> None:
        """What is held (connections, threads) is given back; no further call is taken."""
