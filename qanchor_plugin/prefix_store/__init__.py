"""Where prefixes are kept: memory, then Delta; a corrupt or foreign entry is a miss, never a hit."""

from qanchor_plugin.prefix_store.delta import DeltaTier
from qanchor_plugin.prefix_store.entry import (
    PrefixEntry,
    content_digest,
    entry_from_row,
    entry_to_row,
    make_entry,
)
from qanchor_plugin.prefix_store.lake_tables import LakeTables
from qanchor_plugin.prefix_store.memory import MemoryTier

__all__ = [
    "DeltaTier",
    "LakeTables",
    "MemoryTier",
    "PrefixEntry",
    "content_digest",
    "entry_from_row",
    "entry_to_row",
    "make_entry",
]
