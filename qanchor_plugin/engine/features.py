"""Counts as numbers for a network (numpy only).

Recency is measured from the user's last event, never from the cutoff: prefixes stay valid as time passes.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qanchor_plugin.sequence.slice import MICROS_PER_DAY, Summary

Float32 = npt.NDArray[np.float32]

NUM_AMOUNTS = 2
NUM_SUMMARY_FEATURES = 9
NUM_AGE_FEATURES = 3

_CENTRE = np.array([1.2, 0.6, 0.9, 3.2, 3.8, 0.7, 1.2, 0.6, 0.0], np.float32)
_SPREAD = np.array([1.0, 0.7, 0.9, 1.6, 1.6, 0.5, 1.5, 1.2, 1.0], np.float32)


def summary_features(summaries: Sequence[Summary | None], as_of: Sequence[int | None]) -> Float32:
    """(N, 9) float32, about unit scale: log count, log counts of the last 30 and 90 days, log days since
    the last and the first event, log events a month, signed log amounts (2), and a constant 1.

    Args:
        summaries: None becomes a row of zeros.
        as_of: the instant of each user's last event, microseconds; None: the summary's own last one.
    """
    rows = np.zeros((len(summaries), NUM_SUMMARY_FEATURES), np.float64)
    present = np.array([one is not None for one in summaries], bool)
    for row, (summary, last_at) in enumerate(zip(summaries, as_of, strict=True)):
        if summary is not None:
            rows[row] = _plain(summary, summary.last_at if last_at is None else last_at)
    scaled = (rows - _CENTRE) / _SPREAD
    return np.where(present[:, None], scaled, 0.0).astype(np.float32)


def _plain(summary: Summary, last_at: int) -> list[float]:
    age_days = max(0.0, (last_at - summary.last_at) / MICROS_PER_DAY)
    span_days = max(0.0, (last_at - summary.first_at) / MICROS_PER_DAY)
    amounts = [math.copysign(math.log1p(abs(one)), one) for one in summary.amounts[:NUM_AMOUNTS]]
    return [
        math.log1p(summary.count),
        math.log1p(summary.count_30),
        math.log1p(summary.count_90),
        math.log1p(age_days),
        math.log1p(span_days),
        math.log1p(summary.count / max(1.0, span_days / 30.0)),
        *amounts,
        *[0.0] * (NUM_AMOUNTS - len(amounts)),
        1.0,
    ]


def age_features(age_days: Sequence[int | None]) -> Float32:
    """(N, 3) float32 of the whole days from a user's last event to the cutoff: log, linear (90 days are
    1, four at most), and whether there is a last event at all."""
    rows = np.zeros((len(age_days), NUM_AGE_FEATURES), np.float32)
    for row, age in enumerate(age_days):
        if age is not None:
            days = max(0, age)
            rows[row] = (math.log1p(days) / 3.0, min(days / 90.0, 4.0), 1.0)
    return rows
