"""The example's raw tables, from literal rows to literal rows."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from feast_repo import raw_tables

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark


def _text(spark: "SparkSession", columns: str, *rows: tuple[str | None, ...]) -> "DataFrame":
    """Text columns alone, as CSV files are read."""
    return spark.createDataFrame(list(rows), ", ".join(f"{name} string" for name in columns.split()))


@pytest.fixture
def products(spark: "SparkSession") -> "DataFrame":
    return _text(
        spark,
        "product_id department brand product_category product_type package_size",
        ("1.0", "GROCERY", "National", "CHEESE", "SHREDDED CHEESE", "8 OZ"),
        ("2.0", "GROCERY", "Private", "CHEESE", "CHEESE LOAF", None),
        ("3.0", "DELI", "Private", "BEANS", "SALAD", None),
        ("4.0", "DELI", "Private", None, None, None),
    )


_LINE = "household_id basket_id product_id quantity sales_value retail_disc coupon_disc transaction_timestamp"


def test_purchases_take_the_product_texts(spark: "SparkSession", products: "DataFrame") -> None:
    lines = _text(
        spark,
        _LINE,
        ("7", "31198570044.0", "1", "2.0", "3.5", "0.5", "0.0", "2017-01-28 19:06:53"),
        ("7", "31198570044.0", "99", "1.0", "1.0", "0.0", "0.0", "2017-01-28 19:06:53"),
    )
    found = raw_tables.purchases({"transactions": lines, "products": products})
    assert dict(found.dtypes)["household_id"] == "bigint"
    assert dict(found.dtypes)["event_timestamp"] == "timestamp"
    known, unlisted = sorted(found.collect(), key=lambda row: row.product_id)
    assert (known.product_category, known.brand, known.sales_value) == ("CHEESE", "National", 3.5)
    assert known.event_timestamp.astimezone(UTC) == datetime(2017, 1, 28, 19, 6, 53, tzinfo=UTC)
    assert known.basket_id == 31198570044
    assert (unlisted.product_id, unlisted.product_category) == (99, None)


def test_campaigns_stand_at_their_first_day(spark: "SparkSession") -> None:
    found = raw_tables.campaigns(
        {
            "campaigns": _text(spark, "campaign_id household_id", ("24", "7")),
            "campaign_descriptions": _text(
                spark,
                "campaign_id campaign_type start_date end_date",
                ("24", "Type C", "2016-11-14", "2017-01-16"),
            ),
        }
    ).collect()
    assert [(row.household_id, row.campaign_type) for row in found] == [(7, "Type C")]
    assert found[0].event_timestamp.astimezone(UTC) == datetime(2016, 11, 14, tzinfo=UTC)


def test_a_redemption_takes_the_commonest_category_at_the_end_of_its_day(
    spark: "SparkSession", products: "DataFrame"
) -> None:
    coupons = _text(
        spark,
        "coupon_upc product_id campaign_id",
        ("10", "1.0", "26"),
        ("10", "2.0", "26"),
        ("10", "3.0", "26"),
        ("10", "3.0", "27"),
        ("11", "3.0", "26"),
        ("11", "1.0", "26"),
        ("12", "4.0", "26"),
    )
    redeemed = _text(
        spark,
        "household_id coupon_upc campaign_id redemption_date",
        ("7", "10", "26", "2017-08-31"),
        ("7", "11", "26", "2017-09-01"),
        ("7", "12", "26", "2017-09-02"),
    )
    found = raw_tables.redemptions(
        {"coupons": coupons, "coupon_redemptions": redeemed, "products": products}
    ).collect()
    rows = {row.coupon_upc: (row.product_category, row.event_timestamp.astimezone(UTC)) for row in found}
    assert rows == {
        "10": ("CHEESE", datetime(2017, 9, 1, tzinfo=UTC)),
        "11": ("BEANS", datetime(2017, 9, 2, tzinfo=UTC)),
        "12": (None, datetime(2017, 9, 3, tzinfo=UTC)),
    }


def test_spend_is_so_far_and_thirty_days_at_the_end_of_each_day(spark: "SparkSession") -> None:
    def line(day: str, value: str) -> tuple[str, ...]:
        return ("7", "1.0", "1", "1.0", value, "0.0", "0.0", f"{day} 10:00:00")

    lines = _text(
        spark,
        _LINE,
        line("2017-01-01", "1.10"),
        line("2017-01-01", "2.20"),
        line("2017-01-30", "4.00"),
        line("2017-01-31", "8.00"),
    )
    found = raw_tables.spend({"transactions": lines}).orderBy("event_timestamp").collect()
    assert [(row.total, row.lines, row.last_30_days, row.day_total) for row in found] == [
        (3.3, 2, 3.3, 3.3),
        (7.3, 3, 7.3, 4.0),
        (15.3, 4, 12.0, 8.0),
    ]
    instants = [row.event_timestamp.astimezone(UTC) for row in found]
    assert instants == [
        datetime(2017, 1, 2, tzinfo=UTC),
        datetime(2017, 1, 31, tzinfo=UTC),
        datetime(2017, 2, 1, tzinfo=UTC),
    ]
