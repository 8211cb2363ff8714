"""Declarations: what a user's behaviour is, and which questions are asked of it.

Frozen records, checked where they are written, with a JSON round trip and a digest.
"""

from qanchor_plugin.declare.declarations import Declarations
from qanchor_plugin.declare.modality import Modality
from qanchor_plugin.declare.profile import EntityRef, Profile
from qanchor_plugin.declare.scenario import Scenario
from qanchor_plugin.declare.settings import Settings
from qanchor_plugin.declare.source import SourceSpec

__all__ = [
    "Declarations",
    "EntityRef",
    "Modality",
    "Profile",
    "Scenario",
    "Settings",
    "SourceSpec",
]
