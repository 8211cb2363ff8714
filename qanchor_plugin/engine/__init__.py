"""The torch engine: a user's events to soft prefix tokens, and queries over them to embeddings.

Names are imported on first use, so that ``engine.event_vectors`` and ``engine.config`` need numpy only.
"""

import importlib
from typing import TYPE_CHECKING, Any

from qanchor_plugin.engine.config import PRESETS, EngineConfig
from qanchor_plugin.engine.event_vectors import VectorSnapshot, write_snapshot
from qanchor_plugin.engine.prefix import Prefix, PreviewLine

if TYPE_CHECKING:
    from qanchor_plugin.engine.engine import QueryAnchorEngine
    from qanchor_plugin.engine.soft_prompt import SoftPrompt
    from qanchor_plugin.engine.suffix import PreparedQuery

_LAZY = {
    "PreparedQuery": "qanchor_plugin.engine.suffix",
    "QueryAnchorEngine": "qanchor_plugin.engine.engine",
    "SoftPrompt": "qanchor_plugin.engine.soft_prompt",
}

__all__ = [
    "PRESETS",
    "EngineConfig",
    "Prefix",
    "PreparedQuery",
    "PreviewLine",
    "QueryAnchorEngine",
    "SoftPrompt",
    "VectorSnapshot",
    "write_snapshot",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from qanchor_plugin.extras import require

    require("torch", purpose=f"qanchor_plugin.engine.{name}")
    return getattr(importlib.import_module(_LAZY[name]), name)
