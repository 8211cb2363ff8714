"""Soft prompts: a scenario's own tokens from its labels, everything else frozen."""

from qanchor_plugin.training.tuning.plan import TunePlan
from qanchor_plugin.training.tuning.tune import TunedPrompt, tune, tune_each

__all__ = ["TunePlan", "TunedPrompt", "tune", "tune_each"]
