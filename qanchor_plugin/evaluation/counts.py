"""Hand-made features of the Complete Journey, all from rows before the cut. Rows: households given."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from qanchor_plugin.evaluation.journey import Journey
from qanchor_plugin.evaluation.tasks import OWN_LINES, TASKS, Cut

NUM_DEPARTMENTS = 16
NEVER_DAYS = 400.0
"""Recency of what never happened: longer than the year of data."""

Features = dict[str, npt.NDArray[np.float64]]
"""Named columns, each (n,)."""


def count_features(journey: Journey, cut: Cut, households: npt.NDArray[np.int64]) -> Features:
    """39 columns: departments, recency, frequency, money, campaigns, redemptions."""
    lines = _before(journey.purchases, "bought_at", cut)
    out = _frequency(lines, cut, households)
    out.update(_money(lines, households))
    out.update(_log_counts(lines, "department", NUM_DEPARTMENTS, households))
    out.update(_marketing(journey, cut, households))
    return out


def category_features(
    journey: Journey, cut: Cut, households: npt.NDArray[np.int64], *, num_categories: int
) -> Features:
    """log(1 + lines) of each of the most bought product categories before the cut."""
    lines = _before(journey.purchases, "bought_at", cut)
    return _log_counts(lines, "product_category", num_categories, households)


def own_features(journey: Journey, cut: Cut, households: npt.NDArray[np.int64]) -> dict[str, Features]:
    """By task, what a feature engineer would make for it: the count and recency of its own events."""
    lines = _before(journey.purchases, "bought_at", cut)
    redeemed = _before(journey.redemptions, "redeemed_at", cut)
    own = {
        "redeem": _count_and_recency(redeemed, "redeemed_at", cut, households),
        "no_purchase": _count_and_recency(lines, "bought_at", cut, households),
    }
    for task, mask in OWN_LINES.items():
        own[task] = _count_and_recency(lines[mask(lines)], "bought_at", cut, households)
    return {task: own[task] for task in TASKS}


def matrix(*parts: Features) -> npt.NDArray[np.float64]:
    """(n, d) of all columns, in order."""
    return np.column_stack([column for part in parts for column in part.values()])


def _before(rows: pd.DataFrame, at: str, cut: Cut) -> pd.DataFrame:
    return rows[rows[at] < cut.at]


def _aligned(series: pd.Series, households: npt.NDArray[np.int64], fill: float = 0.0) -> np.ndarray:
    return series.reindex(households).fillna(fill).to_numpy(np.float64)


def _days_since(rows: pd.DataFrame, at: str, cut: Cut, households: npt.NDArray[np.int64]) -> np.ndarray:
    newest = rows.groupby("household_id")[at].max()
    return _aligned((cut.at - newest).dt.total_seconds() / 86_400, households, NEVER_DAYS)


def _count_and_recency(rows: pd.DataFrame, at: str, cut: Cut, households: npt.NDArray[np.int64]) -> Features:
    count = _aligned(rows.groupby("household_id").size(), households)
    return {"own_count": np.log1p(count), "own_days": np.log1p(_days_since(rows, at, cut, households))}


def _frequency(lines: pd.DataFrame, cut: Cut, households: npt.NDArray[np.int64]) -> Features:
    by_user = lines.groupby("household_id")
    out = {
        "lines": np.log1p(_aligned(by_user.size(), households)),
        "baskets": np.log1p(_aligned(by_user["basket_id"].nunique(), households)),
        "stores": np.log1p(_aligned(by_user["store_id"].nunique(), households)),
        "products": np.log1p(_aligned(by_user["product_id"].nunique(), households)),
        "categories": np.log1p(_aligned(by_user["product_category"].nunique(), households)),
        "days_since_last": np.log1p(_days_since(lines, "bought_at", cut, households)),
        "days_active": _aligned(
            (by_user["bought_at"].max() - by_user["bought_at"].min()).dt.total_seconds() / 86_400, households
        ),
    }
    for days in (30, 60, 90):
        recent = lines[lines["bought_at"] >= cut.at - pd.Timedelta(days=days)]
        out[f"lines_{days}"] = np.log1p(_aligned(recent.groupby("household_id").size(), households))
    return out


def _money(lines: pd.DataFrame, households: npt.NDArray[np.int64]) -> Features:
    by_user = lines.groupby("household_id")
    private = (lines["brand"] == "Private").groupby(lines["household_id"]).mean()
    return {
        "spend": np.log1p(_aligned(by_user["sales_value"].sum(), households)),
        "mean_spend": _aligned(by_user["sales_value"].mean(), households),
        "retail_discount": np.log1p(_aligned(by_user["retail_disc"].sum(), households)),
        "coupon_discount": np.log1p(_aligned(by_user["coupon_disc"].sum(), households)),
        "quantity": np.log1p(_aligned(by_user["quantity"].sum(), households)),
        "private_share": _aligned(private, households),
    }


def _marketing(journey: Journey, cut: Cut, households: npt.NDArray[np.int64]) -> Features:
    sent = _before(journey.campaigns, "started_at", cut)
    redeemed = _before(journey.redemptions, "redeemed_at", cut)
    recent = redeemed[redeemed["redeemed_at"] >= cut.at - pd.Timedelta(days=90)]
    out = {
        f"campaigns_{kind}": _aligned(
            sent[sent["campaign_type"] == f"Type {kind}"].groupby("household_id").size(), households
        )
        for kind in "ABC"
    }
    out["days_since_campaign"] = np.log1p(_days_since(sent, "started_at", cut, households))
    out["redemptions"] = np.log1p(_aligned(redeemed.groupby("household_id").size(), households))
    out["redemptions_90"] = np.log1p(_aligned(recent.groupby("household_id").size(), households))
    out["days_since_redemption"] = np.log1p(_days_since(redeemed, "redeemed_at", cut, households))
    return out


def _log_counts(lines: pd.DataFrame, column: str, most: int, households: npt.NDArray[np.int64]) -> Features:
    named = lines[(lines[column] != "") & lines["household_id"].isin(households)]
    chosen = (
        named[column].value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:most]
    )
    counts = named.groupby(["household_id", column]).size().unstack(fill_value=0)
    return {f"{column}={value}": np.log1p(_aligned(counts[value], households)) for value in chosen}
