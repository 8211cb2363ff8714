"""What a declaration must know of an engine: its digest, and how long a query may be.

The engine is loaded once a process, on first use and on the CPU; importing this module loads nothing.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qanchor_plugin.errors import EngineError
from qanchor_plugin.extras import require


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """An engine as declarations see it.

    Attributes:
        name: preset or folder.
        digest: identity of everything that makes a vector.
        projection_digest: identity of the last step alone.
        max_query_tokens: most tokens a query may have.
        count_query_tokens: tokens of a query text.
    """

    name: str
    digest: str
    projection_digest: str
    max_query_tokens: int
    count_query_tokens: Callable[[str], int]


def engine_facts(name: str, device: str) -> EngineFacts:
    """The facts of a preset or folder; a folder whose files changed is read again.

    Raises:
        EngineError: no such engine, or a broken folder; says the next step.
        MissingExtraError: torch or transformers is not installed.
    """
    return _engine_facts(name, _stamp(name))


@functools.lru_cache(maxsize=8)
def _engine_facts(name: str, stamp: tuple[tuple[str, int, int], ...]) -> EngineFacts:
    require("torch", purpose=f"engine {name!r}")
    from qanchor_plugin.engine import QueryAnchorEngine

    engine = QueryAnchorEngine.load(name, device="cpu")
    return EngineFacts(
        name=name,
        digest=engine.digest,
        projection_digest=engine.projection_digest,
        max_query_tokens=engine.max_query_tokens,
        count_query_tokens=engine.count_query_tokens,
    )


def soft_prompt_facts(folder: str, facts: EngineFacts) -> str:
    """The digest of the soft prompt in ``folder``.

    Raises:
        EngineError: not found, broken, or tuned for another engine.
    """
    digest, engine_digest = _soft_prompt(folder, _stamp(folder))
    if engine_digest != facts.digest:
        raise EngineError(
            f"soft prompt {folder!r} was tuned for engine {engine_digest}, but {facts.name!r} is "
            f"{facts.digest}. Tune it again for this engine, or name the engine it was tuned for."
        )
    return digest


@functools.lru_cache(maxsize=64)
def _soft_prompt(folder: str, stamp: tuple[tuple[str, int, int], ...]) -> tuple[str, str]:
    require("torch", purpose=f"soft prompt {folder!r}")
    from qanchor_plugin.engine import SoftPrompt

    prompt = SoftPrompt.load(folder)
    return prompt.digest, prompt.engine_digest


def _stamp(name: str) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file of a folder: a changed folder is another cache entry."""
    folder = Path(name)
    if not folder.is_dir():
        return ()
    found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found)
