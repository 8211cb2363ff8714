"""Everything that touches Feast; imports without torch and without Spark.

A feature repo needs two names from here: ``anchor_view``, and ``AnchorSource`` for type checks.
"""

from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.feast_ext.anchor_view import anchor_view

__all__ = ["AnchorSource", "anchor_view"]
