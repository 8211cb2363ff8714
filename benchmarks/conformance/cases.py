"""Keys, forms of entity rows, time and writing: each case with its answer worked out by hand."""

import warnings
from datetime import timedelta
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, PushSource, ValueType
from feast.data_source import PushMode
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.types import Int64

from benchmarks.conformance.world import DAY, World, case, equal, frame, listed, on, view

ONE_KEY = "user long, at timestamp, value long"
REF = ["v:value"]


def one_key(world: World, rows: list[tuple], **changes: Any) -> FeatureStore:
    """A store with view ``v`` over rows of (user, at, value)."""
    place = world.write(rows, ONE_KEY)
    return world.store(*view(place, {"user": "long"}, {"value": Int64}, **changes))


def values(found: RetrievalJob) -> list:
    """The feature's values, in the order of the answer."""
    return listed(found.to_df()["value"])


# --- keys ---------------------------------------------------------------------------------------


@case("keys", "a number")
def number(world: World) -> None:
    store = one_key(world, [(1, on(1), 10), (2, on(1), 20)])
    equal(sorted(values(store.get_historical_features(frame([on(2)] * 2, user=[1, 2]), REF))), [10, 20])


@case("keys", "two keys that join to the same text: ('1', '11') and ('11', '1')")
def composite(world: World) -> None:
    rows = [("1", "11", on(1), 10), ("11", "1", on(1), 20)]
    place = world.write(rows, "a string, b string, at timestamp, value long")
    store = world.store(*view(place, {"a": "string", "b": "string"}, {"value": Int64}))
    asked = frame([on(2)] * 2, a=["1", "11"], b=["11", "1"])
    equal(sorted(values(store.get_historical_features(asked, REF))), [10, 20])


@case("keys", "a renamed join key")
def renamed(world: World) -> None:
    place = world.write([(1, on(1), 10)], ONE_KEY)
    made = view(place, {"user": "long"}, {"value": Int64})
    store = world.store(*made)
    from feast import FeatureService

    service = FeatureService(name="s", features=[made[-1].with_join_key_map({"user": "friend"})])
    store.apply([service])
    found = store.get_historical_features(frame([on(2)], friend=[1]), store.get_feature_service("s"))
    equal(values(found), [10])


@case("keys", "no entity at all")
def no_entity(world: World) -> None:
    place = world.write([(on(1), 10), (on(3), 30)], "at timestamp, value long")
    store = world.store(*view(place, {}, {"value": Int64}))
    found = store.get_historical_features(frame([on(2), on(4)], label=[1, 2]), REF).to_df()
    equal(listed(found.sort_values("label")["value"]), [10, 30])


@case("keys", "a key that is null in the entity rows")
def null_key(world: World) -> None:
    place = world.write([("a", on(1), 10)], "user string, at timestamp, value long")
    store = world.store(*view(place, {"user": "string"}, {"value": Int64}))
    found = store.get_historical_features(frame([on(2)] * 2, user=["a", None], n=[1, 2]), REF).to_df()
    equal(listed(found.sort_values("n")["value"]), [10, None])


# --- forms of entity rows --------------------------------------------------------------------------


@case("entity rows", "pandas: order and duplicates are kept")
def pandas_order(world: World) -> None:
    store = one_key(world, [(1, on(1), 10), (2, on(1), 20)])
    equal(values(store.get_historical_features(frame([on(2)] * 4, user=[2, 1, 2, 1]), REF)), [20, 10, 20, 10])


@case("entity rows", "pandas: the caller's frame is left alone")
def pandas_untouched(world: World) -> None:
    asked = frame(["2024-05-03", "2024-05-03"], user=[1, 2])
    kept = asked.copy(deep=True)
    one_key(world, [(1, on(1), 10)]).get_historical_features(asked, REF).to_df()
    equal(asked.equals(kept), True)


@case("entity rows", "pandas: instants as text with zones")
def pandas_text(world: World) -> None:
    store = one_key(world, [(1, on(1), 10)])
    asked = frame(["2024-05-02T01:00:00+02:00", "2024-05-02T02:00:00+02:00"], user=[1, 1])
    equal(values(store.get_historical_features(asked, REF)), [None, 10])


@case("entity rows", "pandas: nanoseconds are not rounded up")
def pandas_nanoseconds(world: World) -> None:
    store = one_key(world, [(1, on(1), 10)])
    asked = frame(
        pd.to_datetime(["2024-05-01 23:59:59.999999999", "2024-05-02"], format="ISO8601"), user=[1, 1]
    )
    equal(sorted(values(store.get_historical_features(asked, REF)), key=str), [10, None])


@case("entity rows", "an SQL text")
def sql(world: World) -> None:
    text = "SELECT 1L AS user, timestamp'2024-05-03 00:00:00Z' AS event_timestamp"
    equal(values(one_key(world, [(1, on(1), 10)]).get_historical_features(text, REF)), [10])


@case("entity rows", "a Spark frame")
def spark_frame(world: World) -> None:
    asked = world.spark.createDataFrame([(1, on(2))], "user long, event_timestamp timestamp")
    equal(values(one_key(world, [(1, on(1), 10)]).get_historical_features(asked, REF)), [10])


@case("entity rows", "none: every key of the range, at its end")
def no_frame(world: World) -> None:
    store = one_key(world, [(1, on(1), 10), (2, on(2), 20), (3, on(9), 30)])
    found = store.get_historical_features(features=REF, start_date=on(0), end_date=on(3)).to_df()
    equal(listed(found.sort_values("user")["value"]), [10, 20])


@case("entity rows", "instants come back with their zone, as they went in")
def instants_back(world: World) -> None:
    found = one_key(world, [(1, on(1), 10)]).get_historical_features(frame([on(2)], user=[1]), REF).to_df()
    equal(found["event_timestamp"][0], pd.Timestamp(on(2)))


# --- time -------------------------------------------------------------------------------------------


@case("time", "nothing later is seen; the instant itself is")
def instant(world: World) -> None:
    store = one_key(world, [(1, on(1), 10), (1, on(2), 20)])
    tick = timedelta(microseconds=1)
    asked = frame([on(2) - tick, on(2), on(1) - tick], user=[1] * 3, n=[1, 2, 3])
    found = store.get_historical_features(asked, REF).to_df().sort_values("n")
    equal(listed(found["value"]), [10, 20, None])


@case("time", "ttl: both ends of the window belong to it")
def ttl(world: World) -> None:
    store = one_key(world, [(1, on(1), 10)], ttl=DAY)
    asked = frame([on(2), on(2) + timedelta(microseconds=1)], user=[1, 1], n=[1, 2])
    equal(listed(store.get_historical_features(asked, REF).to_df().sort_values("n")["value"]), [10, None])


@case("time", "two rows of one instant, no created column: one of them, no more rows")
def ties(world: World) -> None:
    store = one_key(world, [(1, on(1), 10), (1, on(1), 11)])
    equal(len(store.get_historical_features(frame([on(2)], user=[1]), REF).to_df()), 1)


@case("time", "two rows of one instant: the one created last")
def created(world: World) -> None:
    rows = [(1, on(1), on(5), 10), (1, on(1), on(4), 11)]
    place = world.write(rows, "user long, at timestamp, loaded timestamp, value long")
    store = world.store(*view(place, {"user": "long"}, {"value": Int64}, created="loaded"))
    equal(values(store.get_historical_features(frame([on(2)], user=[1]), REF)), [10])


@case("time", "one instant and one creation: still one row")
def created_ties(world: World) -> None:
    rows = [(1, on(1), on(5), 10), (1, on(1), on(5), 11)]
    place = world.write(rows, "user long, at timestamp, loaded timestamp, value long")
    store = world.store(*view(place, {"user": "long"}, {"value": Int64}, created="loaded"))
    equal(len(store.get_historical_features(frame([on(2)], user=[1]), REF).to_df()), 1)


@case("time", "filter_by_created_timestamp: what was written later is not seen, the older row is")
def created_filter(world: World) -> None:
    rows = [(1, on(1), on(1), 10), (1, on(2), on(9), 20)]
    place = world.write(rows, "user long, at timestamp, loaded timestamp, value long")
    store = world.store(*view(place, {"user": "long"}, {"value": Int64}, created="loaded"))
    asked = frame([on(3)], user=[1])
    equal(values(store.get_historical_features(asked, REF, filter_by_created_timestamp=True)), [10])


@case("time", "a session in another zone")
def zone(world: World) -> None:
    store = one_key(world, [(1, on(1), 10)])
    before = world.spark.conf.get("spark.sql.session.timeZone")
    world.spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        found = store.get_historical_features(frame([on(1)], user=[1]), REF).to_df()
    finally:
        world.spark.conf.set("spark.sql.session.timeZone", str(before))
    equal(listed(found["value"]), [10])


# --- sources and names --------------------------------------------------------------------------------


@case("sources", "a field mapping")
def mapped(world: World) -> None:
    place = world.write([(1, on(1), 10)], "user long, at timestamp, raw long")
    made = view(place, {"user": "long"}, {"value": Int64}, field_mapping={"raw": "value"})
    equal(values(world.store(*made).get_historical_features(frame([on(2)], user=[1]), REF)), [10])


@case("sources", "a feature named like a word of SQL")
def keyword(world: World) -> None:
    place = world.write([(1, on(1), 10)], "user long, at timestamp, `order` long")
    store = world.store(*view(place, {"user": "long"}, {"order": Int64}))
    found = store.get_historical_features(frame([on(2)], user=[1]), ["v:order"]).to_df()
    equal(listed(found["order"]), [10])


@case("sources", "a table of the catalog")
def table(world: World) -> None:
    name = f"conformance_{world.kind}_table"
    world.spark.createDataFrame([(1, on(1), 10)], ONE_KEY).write.format("delta").mode(
        "overwrite"
    ).saveAsTable(name)
    source = SparkSource(name="of a table", table=name, timestamp_field="at")
    store = world.store(*view(world.place(), {"user": "long"}, {"value": Int64}, source=source))
    equal(values(store.get_historical_features(frame([on(2)], user=[1]), REF)), [10])


@case("sources", "parquet with nanoseconds, as pandas writes it")
def nanoseconds(world: World) -> None:
    place = world.place()
    place.mkdir(parents=True)
    pd.DataFrame({"user": [1], "at": [pd.Timestamp(on(1))], "value": [10]}).to_parquet(place / "a.parquet")
    source = SparkSource(name="of pandas", path=str(place), file_format="parquet", timestamp_field="at")
    store = world.store(*view(place, {"user": "long"}, {"value": Int64}, source=source))
    equal(values(store.get_historical_features(frame([on(2)], user=[1]), REF)), [10])


@case("sources", "a Delta folder called parquet: no rows that were replaced")
def replaced(world: World) -> None:
    place = world.write([(1, on(1), 10)], ONE_KEY)
    newer = world.spark.createDataFrame([(1, on(1), 11)], ONE_KEY)
    newer.write.format("delta").mode("overwrite").save(str(place))
    source = SparkSource(name="called parquet", path=str(place), file_format="parquet", timestamp_field="at")
    store = world.store(*view(place, {"user": "long"}, {"value": Int64}, source=source))
    equal(values(store.get_historical_features(frame([on(2)], user=[1]), REF)), [11])


# --- writing -----------------------------------------------------------------------------------------


def _pushed(world: World, source: SparkSource, at: object) -> list:
    user = Entity(name="user_e", join_keys=["user"], value_type=ValueType.INT64)
    push = PushSource(name="pushed", batch_source=source)
    made = FeatureView(
        name="v", entities=[user], ttl=timedelta(0), source=push, schema=[Field(name="value", dtype=Int64)]
    )
    store = world.store(user, push, made)
    rows = pd.DataFrame({"user": [1], "at": [at], "value": [99]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.push("pushed", rows, to=PushMode.OFFLINE)
    return values(store.get_historical_features(frame([on(9)], user=[1]), REF))


@case("writing", "push to a Delta source")
def push_delta(world: World) -> None:
    from feast.table_format import DeltaFormat

    place = world.write([(1, on(1), 10)], ONE_KEY)
    source = SparkSource(name="b", path=str(place), table_format=DeltaFormat(), timestamp_field="at")
    equal(_pushed(world, source, pd.Timestamp(on(5))), [99])


@case("writing", "push to a Delta source that also says parquet")
def push_both(world: World) -> None:
    from feast.table_format import DeltaFormat

    place = world.write([(1, on(1), 10)], ONE_KEY)
    source = SparkSource(
        name="b", path=str(place), file_format="parquet", table_format=DeltaFormat(), timestamp_field="at"
    )
    equal(_pushed(world, source, pd.Timestamp(on(5)).as_unit("us")), [99])


@case("writing", "push of pandas' nanoseconds to parquet")
def push_parquet(world: World) -> None:
    place = world.write([(1, on(1), 10)], ONE_KEY, "parquet")
    source = SparkSource(name="b", path=str(place), file_format="parquet", timestamp_field="at")
    equal(_pushed(world, source, pd.Timestamp(on(5))), [99])


@case("writing", "push to a table of the catalog")
def push_table(world: World) -> None:
    name = f"conformance_{world.kind}_pushed"
    world.spark.createDataFrame([(1, on(1), 10)], ONE_KEY).write.format("delta").mode(
        "overwrite"
    ).saveAsTable(name)
    equal(_pushed(world, SparkSource(name="b", table=name, timestamp_field="at"), pd.Timestamp(on(5))), [99])
