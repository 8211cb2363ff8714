"""Whether the lake has moved: a value that changes with every commit to what answers are made of."""

from collections.abc import Hashable
from pathlib import Path

from qanchor_plugin.extras import require

BEHAVIOUR_TABLES = ("behaviour_sequences", "profile_rows", "pushed_events")
"""What an answer is made of, besides the engine; a table that is not there yet counts as unmoved."""


def lake_state(lake: str) -> Hashable:
    """Equal for two calls between which nobody committed behaviour.

    Of a local or mounted lake, the instants at which the tables' logs last grew (microseconds to read);
    else their versions.
    """
    if "://" in lake:
        return tuple(_version(f"{lake}/{name}") for name in BEHAVIOUR_TABLES)
    return tuple(_grew_at(Path(lake) / name / "_delta_log") for name in BEHAVIOUR_TABLES)


def _grew_at(log: Path) -> int:
    try:
        return log.stat().st_mtime_ns
    except OSError:
        return -1


def _version(uri: str) -> int:
    deltalake = require("deltalake", purpose="Reading the lake")
    try:
        return int(deltalake.DeltaTable(uri, without_files=True).version())
    except (OSError, deltalake.exceptions.DeltaError):
        return -1
