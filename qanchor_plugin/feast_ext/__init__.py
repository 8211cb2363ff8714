"""Everything that touches Feast; imports without torch and without Spark.

A feature repo needs ``anchor_view``, ``push_view`` where events are pushed, and ``AnchorSource`` for type
checks.
"""

from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.feast_ext.anchor_view import anchor_view
from qanchor_plugin.feast_ext.push_view import push_view

__all__ = ["AnchorSource", "anchor_view", "push_view"]
