"""Seven tasks of the Complete Journey: who is asked, and what happened after the cut."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.journey import Journey

MIN_LINES = 5
PET_CATEGORIES = ("DOG FOODS", "CAT FOOD", "CAT LITTER")
"""Named in full: a pattern DOG|CAT would also match HOT DOGS."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """An instant before which features stand, and the window after it that labels look at.

    Attributes:
        at: features use rows before it, labels rows from it on.
        silent_from: ``no_purchase`` means no transaction from here on.
        until: labels use rows before it; None is the end of the data.
    """

    at: pd.Timestamp
    silent_from: pd.Timestamp
    until: pd.Timestamp | None


SELECTION_CUT = Cut(
    at=pd.Timestamp("2017-06-01"),
    silent_from=pd.Timestamp("2017-08-01"),
    until=pd.Timestamp("2017-09-01"),
)
"""Every choice is made here; its label window ends before the final cut begins."""

FINAL_CUT = Cut(at=pd.Timestamp("2017-09-01"), silent_from=pd.Timestamp("2017-11-01"), until=None)
"""Scored once a seed."""


@dataclass(frozen=True, kw_only=True)
class TaskTable:
    """Labels of every asked household.

    Attributes:
        households: (n,) int64, ascending.
        labels: by task name, (n,) bool.
    """

    households: npt.NDArray[np.int64]
    labels: dict[str, npt.NDArray[np.bool_]]


def _department(name: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda lines: lines["department"] == name


def _category_contains(word: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda lines: lines["product_category"].str.contains(word, regex=False)


OWN_LINES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "nutrition": _department("NUTRITION"),
    "deli": _department("DELI"),
    "pet": lambda lines: lines["product_category"].isin(PET_CATEGORIES),
    "baby": _category_contains("BABY"),
    "beer": _category_contains("BEER"),
}
"""The purchase lines that a task is about, as a mask over ``Journey.purchases``."""

TASKS = ("redeem", "no_purchase", *OWN_LINES)


def asked_households(journey: Journey, cut: Cut) -> npt.NDArray[np.int64]:
    """Households with 5 or more purchase lines before the cut, ascending."""
    lines = journey.purchases
    counts = lines.loc[lines["bought_at"] < cut.at, "household_id"].value_counts()
    return np.sort(counts.index[counts >= MIN_LINES].to_numpy(dtype=np.int64))


def journey_tasks(journey: Journey, cut: Cut) -> TaskTable:
    """The seven tasks at ``cut``; labels use only rows from the cut on.

    Raises:
        InputDataError: nobody is asked, or the label window is empty.
    """
    if not cut.at < cut.silent_from or (cut.until is not None and cut.until <= cut.silent_from):
        raise InputDataError(
            f"{cut} is out of order; accepted is at < silent_from < until, so that labels follow features."
        )
    households = asked_households(journey, cut)
    if not len(households):
        raise InputDataError(
            f"no household has {MIN_LINES} purchase lines before {cut.at}; choose a later cut."
        )
    later = _within(journey.purchases, "bought_at", cut.at, cut.until)
    silent = _within(journey.purchases, "bought_at", cut.silent_from, cut.until)
    redeemed = _within(journey.redemptions, "redeemed_at", cut.at, cut.until)
    positive = {
        "redeem": np.isin(households, redeemed["household_id"]),
        "no_purchase": ~np.isin(households, silent["household_id"]),
    }
    for task, own in OWN_LINES.items():
        positive[task] = np.isin(households, later.loc[own(later), "household_id"])
    return TaskTable(households=households, labels=positive)


def _within(rows: pd.DataFrame, at: str, start: pd.Timestamp, until: pd.Timestamp | None) -> pd.DataFrame:
    inside = rows[at] >= start
    return rows[inside if until is None else inside & (rows[at] < until)]
