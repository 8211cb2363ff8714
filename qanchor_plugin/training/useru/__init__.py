"""UserU, the pre-training pairs (Query-as-Anchor §3.1): D_future and D_uqa from histories."""

from qanchor_plugin.training.useru.build import PairCounts, PairPlan, build_pairs
from qanchor_plugin.training.useru.claims import Claim, reflect
from qanchor_plugin.training.useru.future import future_pair
from qanchor_plugin.training.useru.generator import Draft, Generator, GroundedGenerator, Request
from qanchor_plugin.training.useru.pairs import USERU_PAIRS, Pair, pairs_table
from qanchor_plugin.training.useru.topics import TOPICS, Topic

__all__ = [
    "TOPICS",
    "USERU_PAIRS",
    "Claim",
    "Draft",
    "Generator",
    "GroundedGenerator",
    "Pair",
    "PairCounts",
    "PairPlan",
    "Request",
    "Topic",
    "build_pairs",
    "future_pair",
    "pairs_table",
    "reflect",
]
