"""The meaning space of one's own data: what meaning heads compare in."""

import numpy as np
import numpy.typing as npt
import torch

from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import SPACES
from qanchor_plugin.engine.fit_meaning import fit
from qanchor_plugin.engine.modules import empty_space
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.training.batches import PairBatches
from qanchor_plugin.training.behaviour_space import MOST_QUESTIONS, count_things, fit_behaviour

KEPT = "engine"
CHOICES = (KEPT, *SPACES)
"""What a training begins with: the engine's own space, or one fitted on the lake."""


def fit_own_space(engine: QueryAnchorEngine, batches: PairBatches, space: str) -> str | None:
    """The engine's meaning heads compare in a space fitted on what training may see; what it holds, in a
    sentence, None where the engine's own is kept.

    Args:
        space: one of ``CHOICES``.

    Raises:
        InputDataError: the lake holds too little to fit it on, or the engine is of kind ``hf``.
    """
    if space == KEPT:
        return None
    if engine.modules.space is None:
        raise InputDataError(
            f"engine {engine.config.name!r} has no meaning heads whose space could be of {space}; leave the "
            "space as it is (--space engine): a language model learns its own."
        )
    return (fit_to_texts if space == "texts" else fit_to_behaviour)(engine, batches)


def fit_to_texts(engine: QueryAnchorEngine, batches: PairBatches, *, num_batches: int = 16) -> str:
    """The space holds the leading directions of the texts of the first batches' readings."""
    seen = [batches.batch(step).vectors_VE.numpy() for step in range(num_batches)]
    vectors = np.unique(np.concatenate(seen), axis=0)
    wanted = engine.config.meaning_dim
    if len(vectors) <= wanted:
        raise InputDataError(
            f"training batches name {len(vectors)} distinct texts; a meaning space of {wanted} directions "
            "needs more. Leave the engine's own space (--space engine), or declare richer texts."
        )
    set_space(engine, "texts", fit(vectors, wanted))
    return f"{wanted} directions of {len(vectors):,} texts"


def fit_to_behaviour(engine: QueryAnchorEngine, batches: PairBatches) -> str:
    """The space holds the directions in which the users that are trained on differ."""
    seen = count_things(batches.newest_sights())
    questions = engine.encoder.encode(batches.table.questions(most=MOST_QUESTIONS)).astype(np.float32)
    fitted = fit_behaviour(batches.vectors_of(seen.ids), seen.counts, questions, engine.config.meaning_dim)
    set_space(engine, "behaviour", fitted)
    num_users, num_things = seen.counts.shape
    num_directions = int(fitted["basis"].any(axis=0).sum())
    return f"{num_users:,} users by {num_things:,} groups, directions beyond chance: {num_directions}"


def set_space(engine: QueryAnchorEngine, space: str, fitted: dict[str, npt.NDArray[np.float32]]) -> None:
    """The engine's meaning heads compare in the fitted space; all else of it stays."""
    config = engine.config.with_(space=space)
    made = empty_space(config).to(engine.device)
    made.load_state_dict({name: torch.from_numpy(value) for name, value in fitted.items()})
    engine.config = engine.modules.config = config
    engine.modules.space = made.requires_grad_(False)
    engine.forget_digests()
