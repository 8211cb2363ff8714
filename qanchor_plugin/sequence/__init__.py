"""Behaviour as sequences: pure functions over Arrow and numpy.

Spark jobs, workers and the online path call these very functions, so that training and
serving see the same user.
"""

from qanchor_plugin.sequence.fold import fold_users
from qanchor_plugin.sequence.history import Events, UserHistory
from qanchor_plugin.sequence.render import MAX_TEXT_CHARS, render_group, render_text
from qanchor_plugin.sequence.slice import (
    GroupToken,
    ModalitySlice,
    Sight,
    UserSlice,
    sight_at,
    slice_at,
    slice_of,
)

__all__ = [
    "MAX_TEXT_CHARS",
    "Events",
    "GroupToken",
    "ModalitySlice",
    "Sight",
    "UserHistory",
    "UserSlice",
    "fold_users",
    "render_group",
    "render_text",
    "sight_at",
    "slice_at",
    "slice_of",
]
