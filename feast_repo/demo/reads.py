"""What a scorer and a trainer read."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from feast import FeatureStore

SHOWN = ("coupon_redeemer", "churn_risk", "pet_owner")
"""The scenarios of the online read that is printed."""

AD_HOC_VIEW = "ad_hoc"
"""The on-demand view of feast_repo/on_demand.py."""

SCENARIO_OF_TASK = {
    "redeem": "coupon_redeemer",
    "no_purchase": "churn_risk",
    "nutrition": "nutrition_buyer",
    "deli": "deli_buyer",
    "pet": "pet_owner",
    "baby": "baby_household",
    "beer": "beer_buyer",
}


def online(store: FeatureStore, households: list[int]) -> list[dict[str, Any]]:
    """One record a (household, scenario) of SHOWN: status, num_events, as_of, embedding."""
    fields = ("embedding", "status", "num_events", "as_of")
    answer = store.get_online_features(
        features=[f"{scenario}:{one}" for scenario in SHOWN for one in fields],
        entity_rows=[{"household_id": one} for one in households],
        full_feature_names=True,
    ).to_dict()
    return [
        {"household_id": one, "scenario": scenario}
        | {name: answer[f"{scenario}__{name}"][row] for name in fields}
        for row, one in enumerate(households)
        for scenario in SHOWN
    ]


def ad_hoc(store: FeatureStore, households: list[int], query: str) -> list[list[float]]:
    """The embedding of each household for a query that stands in the request alone."""
    answer = store.get_online_features(
        features=[f"{AD_HOC_VIEW}:embedding"],
        entity_rows=[{"household_id": one, "anchor_query": query} for one in households],
        full_feature_names=True,
    ).to_dict()
    return answer[f"{AD_HOC_VIEW}__embedding"]


def point_in_time(
    store: FeatureStore, households: npt.NDArray[np.int64], at: datetime
) -> dict[str, npt.NDArray[np.float32]]:
    """By task, (n, 128): its scenario's embedding of each household, exactly as of ``at``."""
    rows = pd.DataFrame({"household_id": households, "event_timestamp": at.replace(tzinfo=at.tzinfo or UTC)})
    scenarios = SCENARIO_OF_TASK.values()
    job = store.get_historical_features(
        entity_df=rows,
        features=[*(f"{scenario}:embedding" for scenario in scenarios), "spend:total"],
        full_feature_names=True,
    )
    found = job.to_df().set_index("household_id").loc[households]
    return {
        task: np.stack(found[f"{scenario}__embedding"].to_list()).astype(np.float32)
        for task, scenario in SCENARIO_OF_TASK.items()
    }
