"""The Delta tables that `feast_repo.ingest` makes from the shipped files.

Paths are relative to the repository root, where Feast's commands are run.
"""

from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat


def _delta(name: str, description: str) -> SparkSource:
    return SparkSource(
        name=name,
        path=f"data/raw/{name}",
        table_format=DeltaFormat(),
        timestamp_field="event_timestamp",
        description=description,
    )


purchases = _delta("purchases", "Purchase lines with the product's texts, at the moment of the checkout")
campaigns = _delta("campaigns", "Campaigns aimed at a household, at the campaign's start")
redemptions = _delta("redemptions", "Redeemed coupons with the category they cover, at the end of the day")
demographics = _delta("demographics", "One row for each of 801 households; the release gives it no time")
spend = _delta("spend", "Spend of a household so far, at the end of each of its shopping days")
