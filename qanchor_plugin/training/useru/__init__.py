"""UserU, the pre-training pairs (Query-as-Anchor §3.1): future, uqa and outcome from histories."""

from qanchor_plugin.training.useru.build import build_pairs, requests_of
from qanchor_plugin.training.useru.claims import Claim, reflect
from qanchor_plugin.training.useru.counts import PairCounts
from qanchor_plugin.training.useru.future import future_pair
from qanchor_plugin.training.useru.generator import Draft, Generator, GroundedGenerator, Request
from qanchor_plugin.training.useru.outcome import outcome_pairs
from qanchor_plugin.training.useru.pairs import USERU_PAIRS, Pair, pairs_table
from qanchor_plugin.training.useru.plan import PairPlan, is_held_out, shard_of
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
    "is_held_out",
    "outcome_pairs",
    "pairs_table",
    "reflect",
    "requests_of",
    "shard_of",
]
