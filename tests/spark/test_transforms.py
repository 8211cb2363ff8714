"""Transforms on literal rows: what comes out of each is written down by hand."""

import math
from datetime import UTC, date, datetime, timedelta

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import text_id, user_bucket
from spark_jobs.session import in_utc
from spark_jobs.transforms.render import RENDERED, not_in, rendered, texts
from spark_jobs.transforms.sequences import month_of, profile_rows, sequences
from spark_jobs.transforms.validate import count_rows, normalised, num_bad, required_columns, usable
from tests.spark.records import HOUSEHOLD, card, purchases

pytestmark = pytest.mark.spark

NOW = datetime(2024, 3, 10, tzinfo=UTC)
SCHEMA = (
    "household_id long, at timestamp, created timestamp, brand string, product string, category string,"
    " aisle string, value double"
)
ZEROS = bytes(16)


def at(day: int, month: int = 3, **more: int) -> datetime:
    return datetime(2024, month, day, tzinfo=UTC) + timedelta(**more)


def micros(instant: datetime) -> int:
    return round(instant.replace(tzinfo=instant.tzinfo or UTC).timestamp() * 1_000_000)


ROWS = [
    (7, at(1), at(2), "Acme", "milk", "Dairy", "cold", 1.5),
    (7, at(3), None, None, "  bread ", "Bakery", None, None),
    (8, at(4), at(4), "", None, " ", "cold", 2.0),
    (None, at(4), at(4), "Acme", "milk", "Dairy", "cold", 1.0),
    (9, None, at(4), "Acme", "milk", "Dairy", "cold", 1.0),
    (9, NOW + timedelta(microseconds=1), at(4), "Acme", "milk", "Dairy", "cold", 1.0),
    (9, NOW, at(4), "Acme", "milk", "Dairy", "cold", 1.0),
]


def test_rows_that_cannot_be_used_are_counted_by_reason(spark: SparkSession) -> None:
    shaped = normalised(spark.createDataFrame(ROWS, SCHEMA), purchases(), [HOUSEHOLD], latest=NOW)
    counts = count_rows(shaped)
    assert counts == {"rows": 7, "null_user": 1, "null_event_at": 1, "future_event_at": 1, "blank_text": 1}
    assert num_bad(counts) == 3
    assert usable(shaped).count() == 4


def test_known_at_is_the_created_column_else_the_event(spark: SparkSession) -> None:
    rows = spark.createDataFrame(ROWS[:2], SCHEMA)
    with_created = normalised(rows, purchases(known_at="created"), [HOUSEHOLD], latest=NOW)
    without = normalised(rows, purchases(), [HOUSEHOLD], latest=NOW)
    known = F.unix_micros("known_at").alias("known")
    assert [row.known for row in with_created.select(known).collect()] == [micros(at(2)), micros(at(3))]
    assert [row.known for row in without.select(known).collect()] == [micros(at(1)), micros(at(3))]


def test_bytes_that_are_no_text_are_repaired_and_counted(spark: SparkSession) -> None:
    rows = spark.createDataFrame(ROWS[:1], SCHEMA).withColumn("brand", F.expr("cast(X'41FF42' as string)"))
    shaped = normalised(rows, purchases(), [HOUSEHOLD], latest=NOW)
    assert count_rows(shaped) == {"rows": 1, "repaired_text": 1}
    assert [row["text"] for row in texts(shaped, purchases(group_by=())).collect()] == ["A\ufffdB milk"]


def test_a_text_key_that_is_no_text_is_unreadable(spark: SparkSession) -> None:
    from qanchor_plugin.declare import EntityRef

    rows = spark.sql(
        "select cast(X'FF' as string) as card, timestamp'2024-03-01' as at, 'a' as brand, 'b' as product"
    )
    entity = EntityRef(name="card", join_key="card", value_type="STRING")
    plain = purchases(group_by=(), amounts=())
    assert count_rows(normalised(rows, plain, [entity], latest=NOW)) == {"rows": 1, "unreadable_user": 1}


def test_a_100_kb_text_is_cut_where_the_online_path_cuts_it(spark: SparkSession) -> None:
    rows = spark.createDataFrame([(7, at(1), None, "x" * 100_000, "y", None, None, 1.0)], SCHEMA)
    shaped = normalised(rows, purchases(), [HOUSEHOLD], latest=NOW)
    assert [row["text"] for row in texts(shaped, purchases()).collect()] == ["x" * 512]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_times_without_a_zone_are_utc(spark: SparkSession, zone: str) -> None:
    spark.conf.set("spark.sql.session.timeZone", zone)
    try:
        with in_utc(spark):
            query = "select 1L as household_id, {} as at, 'a' as brand, 'b' as product"
            kinds = [
                "'2024-03-01 23:30:00'",
                "timestamp_ntz'2024-03-01 23:30:00'",
                "timestamp'2024-03-02 01:30:00+02:00'",
            ]
            plain = purchases(group_by=(), amounts=())
            found = [
                normalised(spark.sql(query.format(kind)), plain, [HOUSEHOLD], latest=NOW)
                .select(F.unix_micros("event_at").alias("at"), month_of(F.col("event_at")).alias("month"))
                .collect()[0]
                for kind in kinds
            ]
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
    assert [tuple(row) for row in found] == [(micros(at(1, hours=23, minutes=30)), "2024-03")] * 3


def test_a_number_is_no_instant(spark: SparkSession) -> None:
    rows = spark.sql("select 1L as household_id, 5L as at, 'a' as brand, 'b' as product")
    with pytest.raises(InputDataError, match="'at' has type bigint"):
        normalised(rows, purchases(group_by=(), amounts=()), [HOUSEHOLD], latest=NOW)


def test_required_columns_name_keys_times_and_template() -> None:
    assert required_columns(purchases(known_at="created"), [HOUSEHOLD]) == (
        "household_id", "at", "created", "brand", "product", "category", "aisle", "value",
    )  # fmt: skip


def test_rendered_events_carry_ids_groups_and_amounts(spark: SparkSession) -> None:
    shaped = normalised(spark.createDataFrame(ROWS[:3], SCHEMA), purchases(), [HOUSEHOLD], latest=NOW)
    found = rendered(shaped, purchases(), [HOUSEHOLD]).orderBy("event_at").collect()
    assert [row["user_key"] for row in found] == ['{"household_id": 7}'] * 2 + ['{"household_id": 8}']
    assert [bytes(row["text_id"]) for row in found] == [text_id("Acme milk"), text_id("bread"), text_id("")]
    assert [bytes(row["groups"]) for row in found] == [
        text_id("Dairy") + text_id("cold"),
        text_id("Bakery") + ZEROS,
        ZEROS + text_id("cold"),
    ]
    assert found[0]["amounts"] == [1.5]
    assert math.isnan(found[1]["amounts"][0])


def test_texts_are_distinct_over_events_and_groups(spark: SparkSession) -> None:
    rows = spark.createDataFrame([*ROWS[:2], *ROWS[:2]], SCHEMA)
    shaped = normalised(rows, purchases(), [HOUSEHOLD], latest=NOW)
    found = texts(shaped, purchases()).collect()
    assert sorted(row["text"] for row in found) == ["Acme milk", "Bakery", "Dairy", "bread", "cold"]
    assert all(bytes(row["text_id"]) == text_id(row["text"]) for row in found)
    known = spark.createDataFrame([(text_id("cold"),), (text_id("bread"),)], "text_id binary")
    left = not_in(texts(shaped, purchases()), known, "text_id").collect()
    assert sorted(row["text"] for row in left) == ["Acme milk", "Bakery", "Dairy"]


def event(user: bytes, when: datetime, text: str, value: float = 1.0) -> tuple:
    return (user, user.decode(), when, when, text_id(text), text_id("g") + ZEROS, [value])


def test_a_sequence_row_is_a_user_and_month_with_ordered_arrays(spark: SparkSession) -> None:
    rows = [
        event(b"u", at(5), "b"), event(b"u", at(1), "z"), event(b"u", at(5), "a"),
        event(b"u", at(1, month=2), "old"), event(b"v", at(2), "v", math.nan),
    ]  # fmt: skip
    made = sequences(spark.createDataFrame(rows, RENDERED), purchases(), batch="b1", num_buckets=4)
    found = made.orderBy("user", "month").collect()
    ties = sorted([text_id("a"), text_id("b")])
    assert [(bytes(r["user"]), r["month"], r["num_events"], r["batch"]) for r in found] == [
        (b"u", "2024-02", 1, "b1"), (b"u", "2024-03", 3, "b1"), (b"v", "2024-03", 1, "b1"),
    ]  # fmt: skip
    assert [bytes(one) for one in found[1]["text_id"]] == [text_id("z"), *ties]
    assert [micros(one) for one in found[1]["event_at"]] == [micros(at(1)), micros(at(5)), micros(at(5))]
    assert found[1]["amounts"] == [[1.0], [1.0], [1.0]]
    assert math.isnan(found[2]["amounts"][0][0])
    assert [row["user_bucket"] for row in found] == [user_bucket(u, 4) for u in (b"u", b"u", b"v")]


def test_duplicate_events_stay(spark: SparkSession) -> None:
    rows = [event(b"u", at(5), "b")] * 3
    made = sequences(spark.createDataFrame(rows, RENDERED), purchases(), batch="b1", num_buckets=1)
    assert [row["num_events"] for row in made.collect()] == [3]


def test_profile_rows_keep_every_row_and_static_ones_the_newest(spark: SparkSession) -> None:
    rows = [event(b"u", at(1), "tier 1"), event(b"u", at(5), "tier 2"), event(b"v", at(2), "tier 3")]
    frame = spark.createDataFrame(rows, RENDERED)
    timed = profile_rows(frame, card(), batch="b", num_buckets=1).orderBy("event_at").collect()
    assert [bytes(row["text_id"]) for row in timed] == [
        text_id("tier 1"),
        text_id("tier 3"),
        text_id("tier 2"),
    ]
    fixed = profile_rows(frame, card(static=True), batch="b", num_buckets=1).orderBy("user").collect()
    assert [bytes(row["text_id"]) for row in fixed] == [text_id("tier 2"), text_id("tier 3")]
    assert {micros(row["event_at"]) for row in fixed} == {0}


def test_dates_render_as_themselves(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [(7, at(1), date(2024, 2, 29))], "household_id long, at timestamp, tier date"
    )
    shaped = normalised(rows, card(), [HOUSEHOLD], latest=NOW)
    assert [row["text"] for row in texts(shaped, card()).collect()] == ["tier 2024-02-29"]
