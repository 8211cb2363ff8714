"""A training loop over any objective: batches in, losses out, checkpoints and logs beside it."""

from qanchor_plugin.training.trainer.loop import Trainer
from qanchor_plugin.training.trainer.plan import TrainPlan
from qanchor_plugin.training.trainer.report import TrainReport

__all__ = ["TrainPlan", "TrainReport", "Trainer"]
