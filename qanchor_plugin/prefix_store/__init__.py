"""Where prefixes are kept: memory, disk, Delta; a corrupt or foreign entry is a counted miss, never a hit."""

from qanchor_plugin.prefix_store.calibration import Calibration, calibration_path
from qanchor_plugin.prefix_store.delta import DeltaTier
from qanchor_plugin.prefix_store.disk import DiskTier, forget_here
from qanchor_plugin.prefix_store.entry import (
    PrefixEntry,
    content_digest,
    entry_from_row,
    entry_to_row,
    make_entry,
)
from qanchor_plugin.prefix_store.kv_policy import KVPolicy, kv_policy
from qanchor_plugin.prefix_store.lake_tables import LakeTables
from qanchor_plugin.prefix_store.memory import MemoryTier
from qanchor_plugin.prefix_store.tiered import TieredPrefixes

__all__ = [
    "Calibration",
    "DeltaTier",
    "DiskTier",
    "KVPolicy",
    "LakeTables",
    "MemoryTier",
    "PrefixEntry",
    "TieredPrefixes",
    "calibration_path",
    "content_digest",
    "entry_from_row",
    "entry_to_row",
    "forget_here",
    "kv_policy",
    "make_entry",
]
