"""The five raw tables as functions of the shipped files: DataFrame in, DataFrame out.

Household ids are BIGINT, instants UTC. Dates without a time of day stand where the row could first
have been known: a campaign at the start of its first day, a redemption and a day's spend at the end
of the day, so that a cut at midnight never sees the day that follows it.
"""

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

HOUSEHOLD = "household_id"
EVENT_AT = "event_timestamp"
FIRST_DAY = "2017-01-01"

INPUTS: dict[str, tuple[str, ...]] = {
    "purchases": ("transactions", "products"),
    "campaigns": ("campaigns", "campaign_descriptions"),
    "redemptions": ("coupon_redemptions", "coupons", "products"),
    "demographics": ("demographics",),
    "spend": ("transactions",),
}
"""The shipped files that each raw table is made of."""


def _household() -> Column:
    return F.col(HOUSEHOLD).cast("bigint").alias(HOUSEHOLD)


def _product_id() -> Column:
    return F.col("product_id").cast("double").cast("bigint").alias("product_id")  # "25671.0" in places


def purchases(files: Mapping[str, DataFrame]) -> DataFrame:
    """One row a purchase line, with the product's texts (null where the product is not listed)."""
    products = files["products"].select(
        _product_id(), "department", "brand", "product_category", "product_type", "package_size"
    )
    lines = files["transactions"].select(
        _household(),
        F.col("basket_id").cast("double").cast("bigint").alias("basket_id"),
        _product_id(),
        F.col("quantity").cast("double").alias("quantity"),
        F.col("sales_value").cast("double").alias("sales_value"),
        F.col("retail_disc").cast("double").alias("retail_disc"),
        F.col("coupon_disc").cast("double").alias("coupon_disc"),
        F.col("transaction_timestamp").cast("timestamp").alias(EVENT_AT),
    )
    return lines.join(products, on="product_id", how="left")


def campaigns(files: Mapping[str, DataFrame]) -> DataFrame:
    """One row a (household, campaign), at the start of the campaign's first day."""
    described = files["campaign_descriptions"].select(
        F.col("campaign_id").cast("bigint").alias("campaign_id"),
        "campaign_type",
        F.col("start_date").cast("timestamp").alias(EVENT_AT),
    )
    targeted = files["campaigns"].select(
        _household(), F.col("campaign_id").cast("bigint").alias("campaign_id")
    )
    return targeted.join(described, on="campaign_id", how="left")


def redemptions(files: Mapping[str, DataFrame]) -> DataFrame:
    """One row a redeemed coupon, with the category that most of its products have (ties: the first
    by name), at the end of the day of the redemption."""
    categories = files["products"].select(_product_id(), "product_category").dropna()
    covered = (
        files["coupons"]
        .select("coupon_upc", _product_id())
        .distinct()
        .join(categories, on="product_id", how="inner")
        .groupBy("coupon_upc", "product_category")
        .agg(F.count(F.lit(1)).alias("num_products"))
    )
    first = Window.partitionBy("coupon_upc").orderBy(F.desc("num_products"), F.asc("product_category"))
    chosen = (
        covered.withColumn("place", F.row_number().over(first))
        .where(F.col("place") == 1)
        .select("coupon_upc", "product_category")
    )
    redeemed = files["coupon_redemptions"].select(
        _household(),
        "coupon_upc",
        F.col("campaign_id").cast("bigint").alias("campaign_id"),
        _end_of_day(F.col("redemption_date").cast("date")).alias(EVENT_AT),
    )
    return redeemed.join(chosen, on="coupon_upc", how="left")


def demographics(files: Mapping[str, DataFrame]) -> DataFrame:
    """One row a household; the release gives no time, so it stands at the first day of the data."""
    return files["demographics"].select(
        _household(),
        "age",
        "income",
        "home_ownership",
        "marital_status",
        "household_size",
        "household_comp",
        "kids_count",
        F.lit(FIRST_DAY).cast("timestamp").alias(EVENT_AT),
    )


def spend(files: Mapping[str, DataFrame]) -> DataFrame:
    """One row a (household, shopping day): spend so far, at the end of that day."""
    daily = (
        files["transactions"]
        .select(
            _household(),
            F.col("transaction_timestamp").cast("timestamp").cast("date").alias("day"),
            F.col("sales_value").cast("double").alias("sales_value"),
        )
        .groupBy(HOUSEHOLD, "day")
        .agg(F.sum("sales_value").alias("day_total"), F.count(F.lit(1)).alias("day_lines"))
        .withColumn("day_number", F.datediff("day", F.lit(FIRST_DAY)))
    )
    so_far = (
        Window.partitionBy(HOUSEHOLD)
        .orderBy("day_number")
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    month = Window.partitionBy(HOUSEHOLD).orderBy("day_number").rangeBetween(-29, Window.currentRow)
    return daily.select(
        HOUSEHOLD,
        F.round(F.sum("day_total").over(so_far), 2).alias("total"),
        F.sum("day_lines").over(so_far).alias("lines"),
        F.round(F.sum("day_total").over(month), 2).alias("last_30_days"),
        F.round("day_total", 2).alias("day_total"),
        _end_of_day(F.col("day")).alias(EVENT_AT),
    )


def _end_of_day(day: Column) -> Column:
    return F.date_add(day, 1).cast("timestamp")
