"""The meaning space of one's own texts: what meaning heads compare in."""

import numpy as np
import numpy.typing as npt
import torch

from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.fit_meaning import fit
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.training.batches import PairBatches


def fit_own_space(engine: QueryAnchorEngine, batches: PairBatches, *, num_batches: int = 16) -> int:
    """The engine's space is fitted on the texts of the first batches' readings; how many those are.

    Only texts that stood before a reading's cutoff are seen. A ``hf`` engine has no such space: 0.

    Raises:
        InputDataError: fewer texts than the space has directions.
    """
    if engine.modules.space is None:
        return 0
    seen = [batches.batch(step).vectors_VE.numpy() for step in range(num_batches)]
    vectors = np.unique(np.concatenate(seen), axis=0)
    wanted = engine.config.meaning_dim
    if len(vectors) <= wanted:
        raise InputDataError(
            f"training batches name {len(vectors)} distinct texts; a meaning space of {wanted} directions "
            "needs more. Leave the engine's own space (no --own-texts), or declare richer texts."
        )
    set_space(engine, vectors)
    return len(vectors)


def set_space(engine: QueryAnchorEngine, vectors_VE: npt.NDArray[np.float32]) -> None:
    """A ``meaning`` engine's heads compare in the space of these vectors of texts (V, E)."""
    fitted = fit(vectors_VE, engine.config.meaning_dim)
    space = {name: torch.from_numpy(value) for name, value in fitted.items()}
    if engine.modules.space is not None:
        engine.modules.space.load_state_dict(space)
        engine.forget_digests()
