"""The Complete Journey's tables, read as they ship (gzip CSV), with plain integer ids."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from qanchor_plugin.errors import InputDataError

_FILES = {
    "transactions": "transactions.csv.gz",
    "products": "products.csv.gz",
    "campaigns": "campaigns.csv.gz",
    "campaign_descriptions": "campaign_descriptions.csv.gz",
    "redemptions": "coupon_redemptions.csv.gz",
    "demographics": "demographics.csv.gz",
}


@dataclass(frozen=True, kw_only=True)
class Journey:
    """Every table that tasks and baselines read. Instants are naive, as shipped.

    Attributes:
        purchases: household_id, basket_id, store_id, product_id, quantity, sales_value,
            retail_disc, coupon_disc, bought_at, department, brand, product_category, product_type;
            texts are "" where null.
        campaigns: household_id, campaign_type, started_at.
        redemptions: household_id, coupon_upc, redeemed_at.
        demographics: household_id and seven text columns, "" where null.
    """

    purchases: pd.DataFrame
    campaigns: pd.DataFrame
    redemptions: pd.DataFrame
    demographics: pd.DataFrame


def read_journey(folder: str | Path) -> Journey:
    """The tables under ``folder``.

    Raises:
        InputDataError: a file is absent; names it.
    """
    folder = Path(folder)
    absent = [name for name in _FILES.values() if not (folder / name).is_file()]
    if absent:
        raise InputDataError(
            f"{folder} holds no {absent}; give the folder of the Complete Journey sample (feast_repo/data)."
        )
    raw = {table: pd.read_csv(folder / name) for table, name in _FILES.items()}
    return Journey(
        purchases=_purchases(raw["transactions"], raw["products"]),
        campaigns=_campaigns(raw["campaigns"], raw["campaign_descriptions"]),
        redemptions=_redemptions(raw["redemptions"]),
        demographics=raw["demographics"].astype({"household_id": "int64"}).fillna(""),
    )


def _purchases(transactions: pd.DataFrame, products: pd.DataFrame) -> pd.DataFrame:
    ids = ["household_id", "store_id", "basket_id", "product_id"]
    lines = transactions.astype(dict.fromkeys(ids, "int64"))
    lines["bought_at"] = pd.to_datetime(lines.pop("transaction_timestamp"))
    texts = ["department", "brand", "product_category", "product_type"]
    named = products.astype({"product_id": "int64"})[["product_id", *texts]]
    lines = lines.merge(named, on="product_id", how="left", validate="many_to_one")
    lines[texts] = lines[texts].fillna("")
    return lines.sort_values(["household_id", "bought_at", "basket_id", "product_id"], ignore_index=True)


def _campaigns(targeted: pd.DataFrame, descriptions: pd.DataFrame) -> pd.DataFrame:
    joined = targeted.astype("int64").merge(
        descriptions.astype({"campaign_id": "int64"}), on="campaign_id", how="left", validate="many_to_one"
    )
    joined["started_at"] = pd.to_datetime(joined["start_date"])
    return joined[["household_id", "campaign_id", "campaign_type", "started_at"]]


def _redemptions(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.astype({"household_id": "int64", "coupon_upc": "int64", "campaign_id": "int64"})
    return rows.assign(redeemed_at=pd.to_datetime(rows["redemption_date"]))
