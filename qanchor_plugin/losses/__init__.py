"""The paper's losses as pure functions of tensors (Query-as-Anchor §3.2.2, §3.2.3)."""

from qanchor_plugin.losses.contrastive import (
    DEFAULT_MARGIN,
    DEFAULT_TEMPERATURE,
    contrastive_loss,
    negatives_kept,
    retrieval_accuracy,
)
from qanchor_plugin.losses.gather import gather_rows
from qanchor_plugin.losses.next_token import IGNORED, answer_labels, next_token_loss
from qanchor_plugin.losses.prototype import prototype_loss
from qanchor_plugin.losses.total import total_loss

__all__ = [
    "DEFAULT_MARGIN",
    "DEFAULT_TEMPERATURE",
    "IGNORED",
    "answer_labels",
    "contrastive_loss",
    "gather_rows",
    "negatives_kept",
    "next_token_loss",
    "prototype_loss",
    "retrieval_accuracy",
    "total_loss",
]
