"""The as-of join against a slow, obvious reference, and against rows worked out by hand."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from qanchor_plugin.feast_ext.asof_join import History, join_as_of

pytestmark = pytest.mark.spark

ROW_SCHEMA = "id int, a string, b string, at timestamp"
HISTORY_SCHEMA = "a string, b string, event_at timestamp, created_at timestamp, value int"


def instant(minute: int) -> datetime:
    return datetime(2017, 5, 1, tzinfo=UTC) + timedelta(minutes=minute)


def history_of(rows: DataFrame, *, ttl: timedelta, created_at: str = "created_at") -> History:
    return History(
        rows=rows,
        keys={"a": "a", "b": "b"},
        key_types={"a": "string", "b": "string"},
        event_at="event_at",
        created_at=created_at,
        features={"value": "value"},
        tie_columns=("value",),
        ttl=ttl,
    )


def joined(
    spark: SparkSession,
    rows: Sequence[Any],
    past: Sequence[Any],
    *,
    ttl: timedelta,
    known_only: bool,
    created: bool,
    pruned: bool = False,
) -> list[tuple[int, int | None]]:
    entity = spark.createDataFrame(list(rows), ROW_SCHEMA)
    history = history_of(
        spark.createDataFrame(list(past), HISTORY_SCHEMA), ttl=ttl, created_at="created_at" if created else ""
    )
    answer = join_as_of(entity, history, at="at", known_only=known_only, asked_by=entity if pruned else None)
    return sorted(((row["id"], row["value"]) for row in answer.collect()), key=repr)


def reference(
    rows: Sequence[Any], past: Sequence[Any], *, ttl: timedelta, known_only: bool, created: bool
) -> list[tuple[int, int | None]]:
    """One entity row at a time, one history row at a time."""
    answer = []
    for number, a, b, at in rows:
        seen = [
            row
            for row in past
            if (row[0], row[1]) == (a, b)
            and row[2] <= at
            and (not ttl or row[2] >= at - ttl)
            and not (known_only and created and row[3] > at)
        ]
        newest = max(seen, key=lambda row: (row[2], row[3] if created else 0, row[4]), default=None)
        answer.append((number, None if newest is None else newest[4]))
    return sorted(answer, key=repr)


keys = st.sampled_from([("1", "11"), ("11", "1"), ("1", "1"), (None, "1"), ("", "")])
minutes = st.integers(0, 6).map(instant)
entity_rows = st.lists(st.tuples(keys, minutes), min_size=1, max_size=24).map(
    lambda found: [(number // 2, *key, at) for number, (key, at) in enumerate(found)]
)
past_rows = st.lists(st.tuples(keys, minutes, minutes, st.integers(0, 3)), max_size=40).map(
    lambda found: [(*key, at, created, value) for key, at, created, value in found]
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=entity_rows,
    past=past_rows,
    ttl=st.sampled_from([timedelta(0), timedelta(minutes=2)]),
    known_only=st.booleans(),
    created=st.booleans(),
    pruned=st.booleans(),
)
def test_it_agrees_with_the_reference(
    spark: SparkSession,
    rows: list,
    past: list,
    ttl: timedelta,
    known_only: bool,
    created: bool,
    pruned: bool,
) -> None:
    chosen: dict[str, Any] = {"ttl": ttl, "known_only": known_only, "created": created}
    found = joined(spark, rows, past, **chosen, pruned=pruned)
    assert found == reference(rows, past, **chosen)


def test_the_plan_has_one_sort_of_the_history_no_inequality_join_and_no_self_join(
    spark: SparkSession,
) -> None:
    entity = spark.createDataFrame([(1, "a", "b", instant(1))], ROW_SCHEMA)
    past = spark.createDataFrame([("a", "b", instant(1), instant(1), 1)], HISTORY_SCHEMA)
    history = history_of(past, ttl=timedelta(days=1))
    plans = [
        join_as_of(entity, history, at="at", asked_by=keys)._jdf.queryExecution().optimizedPlan().toString()
        for keys in (entity, None)
    ]
    assert [plan.count("Window [") for plan in plans] == [1, 1]
    assert [plan.count("Join ") for plan in plans] == [1, 0]
    assert "Join LeftSemi" in plans[0]
    assert "strategy=broadcast" in plans[0]


def test_keys_that_join_to_the_same_text_stay_apart_and_duplicates_stay(spark: SparkSession) -> None:
    rows = [(1, "1", "11", instant(5)), (1, "1", "11", instant(5)), (2, "11", "1", instant(5))]
    past = [("1", "11", instant(1), instant(1), 10), ("11", "1", instant(1), instant(1), 20)]
    found = joined(spark, rows, past, ttl=timedelta(0), known_only=False, created=True)
    assert found == [(1, 10), (1, 10), (2, 20)]


def test_the_ttl_window_holds_both_ends_to_the_microsecond(spark: SparkSession) -> None:
    tick = timedelta(microseconds=1)
    rows = [
        (1, "a", "b", instant(0)),
        (2, "a", "b", instant(0) - tick),
        (3, "a", "b", instant(10)),
        (4, "a", "b", instant(10) + tick),
    ]
    past = [("a", "b", instant(0), instant(0), 7)]
    found = joined(spark, rows, past, ttl=timedelta(minutes=10), known_only=False, created=True)
    assert found == [(1, 7), (2, None), (3, 7), (4, None)]


def test_a_row_written_late_is_seen_only_from_then_on_and_the_older_one_until_then(
    spark: SparkSession,
) -> None:
    past = [("a", "b", instant(1), instant(1), 1), ("a", "b", instant(2), instant(8), 2)]
    rows = [(1, "a", "b", instant(7)), (2, "a", "b", instant(8))]
    late = joined(spark, rows, past, ttl=timedelta(0), known_only=True, created=True)
    assert late == [(1, 1), (2, 2)]
    assert joined(spark, rows, past, ttl=timedelta(0), known_only=False, created=True) == [(1, 2), (2, 2)]


def test_ties_go_to_the_last_written_then_to_the_greatest_value_in_any_order(spark: SparkSession) -> None:
    past = [
        ("a", "b", instant(1), instant(3), 5),
        ("a", "b", instant(1), instant(4), 1),
        ("a", "b", instant(1), instant(4), 2),
    ]
    rows = [(1, "a", "b", instant(2))]
    for shuffled in (past, past[::-1], [past[1], past[0], past[2]]):
        assert joined(spark, rows, shuffled, ttl=timedelta(0), known_only=False, created=True) == [(1, 2)]
        assert joined(spark, rows, shuffled, ttl=timedelta(0), known_only=False, created=False) == [(1, 5)]


def test_a_null_newest_value_is_not_replaced_by_an_older_one(spark: SparkSession) -> None:
    past = [("a", "b", instant(1), instant(1), 5), ("a", "b", instant(2), instant(2), None)]
    found = joined(spark, [(1, "a", "b", instant(3))], past, ttl=timedelta(0), known_only=False, created=True)
    assert found == [(1, None)]


def test_null_instants_see_nothing_and_keep_their_row(spark: SparkSession) -> None:
    past = [("a", "b", instant(1), instant(1), 5), ("a", "b", None, instant(2), 6)]
    rows = [(1, "a", "b", None), (2, "a", "b", instant(3))]
    found = joined(spark, rows, past, ttl=timedelta(0), known_only=False, created=True)
    assert found == [(1, None), (2, 5)]


def test_maps_odd_names_and_keys_of_another_type_are_carried(spark: SparkSession) -> None:
    rows = spark.sql("SELECT 7.0D AS `house hold.id`, timestamp'2017-05-01 00:10:00Z' AS `at.time`")
    past = spark.sql(
        "SELECT 7L AS hh, timestamp'2017-05-01 00:00:00Z' AS t, map('x', 1) AS m, array(1.5F) AS v"
    )
    history = History(
        rows=past,
        keys={"house hold.id": "hh"},
        key_types={"house hold.id": "bigint"},
        event_at="t",
        created_at="",
        features={"view@v1__m": "m", "v": "v"},
        tie_columns=("m", "v"),
        ttl=timedelta(0),
    )
    row = join_as_of(rows, history, at="at.time").collect()[0]
    assert row.asDict() == {
        "house hold.id": 7.0,
        "at.time": row["at.time"],
        "view@v1__m": {"x": 1},
        "v": [1.5],
    }
