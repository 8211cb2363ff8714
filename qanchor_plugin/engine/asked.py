"""Is what an engine is asked its own? Prefixes, queries and soft prompts of another engine are refused."""

from collections.abc import Sequence

import torch

from qanchor_plugin.engine.engine_identity import EngineIdentity
from qanchor_plugin.engine.kv import KeptKV
from qanchor_plugin.engine.kv_codec import check_kept
from qanchor_plugin.engine.prefix import Prefix
from qanchor_plugin.engine.soft_prompt import SoftPrompt
from qanchor_plugin.engine.suffix import PreparedQuery
from qanchor_plugin.errors import EngineError


def check_asked(
    engine: EngineIdentity,
    prefixes: Sequence[Prefix],
    queries: Sequence[PreparedQuery],
    cutoffs: Sequence[int],
    kept: Sequence[KeptKV | None] | None = None,
) -> None:
    """Nothing, where the engine can embed them.

    Raises:
        EngineError: another engine's prefixes, queries or keys, or not one cutoff a prefix.
    """
    if len(prefixes) != len(cutoffs):
        raise EngineError(f"{len(prefixes)} prefixes and {len(cutoffs)} cutoffs; give one cutoff a prefix.")
    if kept is not None and len(kept) != len(prefixes):
        raise EngineError(f"{len(prefixes)} prefixes and {len(kept)} stored caches; give one or None each.")
    for one, prefix in zip(kept or (), prefixes, strict=False):
        if one is not None:
            check_kept(engine.modules, one, prefix, engine.kv_digest)
    for query in queries:
        if query.engine_digest != engine.digest:
            raise EngineError(
                f"query {query.query!r} was prepared by engine {query.engine_digest}, this is "
                f"{engine.digest}. Prepare it with this engine."
            )
    for prefix in prefixes:
        if prefix.tokens.shape != (len(prefix.positions), engine.token_width):
            raise EngineError(
                f"a prefix has tokens of shape {prefix.tokens.shape} and {len(prefix.positions)} "
                f"positions; this engine's are {engine.token_width} wide. Rebuild the prefixes."
            )


def checked_rows(engine: EngineIdentity, prompt: SoftPrompt) -> torch.Tensor:
    """(num, C): the soft prompt's rows.

    Raises:
        EngineError: it was tuned on another engine.
    """
    width = engine.token_width
    if prompt.engine_digest != engine.digest or prompt.tokens.shape[1] != width:
        raise EngineError(
            f"the soft prompt belongs to engine {prompt.engine_digest} (width {prompt.tokens.shape[1]}), "
            f"this is {engine.digest} (width {width}). Tune one for this engine."
        )
    return torch.from_numpy(prompt.tokens)
