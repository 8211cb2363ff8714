"""Engines of this process: each is loaded once, however many stores and threads use it."""

import logging
import threading
from typing import TYPE_CHECKING

from qanchor_plugin.extras import require

if TYPE_CHECKING:
    from qanchor_plugin.engine import QueryAnchorEngine

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_loaded: dict[tuple[str, str], "QueryAnchorEngine"] = {}


def shared_engine(name: str, device: str) -> "QueryAnchorEngine":
    """The engine of that name on that device; loaded on the first call, held until the process ends, to embed
    alone (:func:`..engine.serving.load_to_serve`).

    A folder whose files change is not read again: callers compare digests, and :func:`load_anew` or a
    restart reads it.

    Raises:
        EngineError: no such engine, or a broken folder; says the next step.
        MissingExtraError: torch is not installed.
    """
    require("torch", purpose="Answering anchor queries in this process")
    from qanchor_plugin.engine.serving import load_to_serve

    with _lock:
        known = _loaded.get((name, device))
        if known is None:
            known = _loaded[name, device] = load_to_serve(name, device=device)
            logger.info("loaded engine %s (%s)", name, known.digest)
        return known


def load_anew(name: str, device: str) -> "QueryAnchorEngine":
    """The engine as its files are now; whoever asks :func:`shared_engine` from now on gets this one.

    Those that hold the old one keep it until they let it go.

    Raises:
        EngineError: as :func:`shared_engine`; the old one stays.
    """
    require("torch", purpose="Answering anchor queries in this process")
    from qanchor_plugin.engine.serving import load_to_serve

    fresh = load_to_serve(name, device=device)
    with _lock:
        _loaded[name, device] = fresh
    logger.info("loaded engine %s anew (%s)", name, fresh.digest)
    return fresh
