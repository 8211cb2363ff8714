"""Engines of processes that embed and do nothing else."""

import torch

from qanchor_plugin.engine.engine import QueryAnchorEngine
from qanchor_plugin.engine.modules import EngineModules


def load_to_serve(name_or_folder: str, *, device: str = "auto") -> QueryAnchorEngine:
    """:meth:`QueryAnchorEngine.load`, with a language model's linear weights held once.

    On a CPU they are packed for its products, which would else be a second copy. The engine embeds and
    prefills; to train it, to save it or to call its slow path raises EngineError.
    """
    engine = QueryAnchorEngine.load(name_or_folder, device=device)
    with torch.inference_mode():
        is_flat = engine.modules.is_flat
    if is_flat:
        _leave_file(engine.modules)
        with torch.inference_mode():
            engine.note_digests()  # they are of the weights that are let go
            engine.modules.serve_only()
    return engine


def _leave_file(modules: EngineModules) -> None:
    """Every weight has memory of its own, to be let go alone: one view of the mapped file holds all of it."""
    for one in modules.parameters():
        one.data = one.data.clone()
