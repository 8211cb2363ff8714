"""What a push takes and what it refuses: every bad row is named, and of a refused push nothing is kept."""

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from feast import PushSource
from feast.data_source import PushMode
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.table_format import DeltaFormat

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext import AnchorSource, anchor_view, push_view
from qanchor_plugin.feast_ext.push_checks import check_push_views
from qanchor_plugin.feast_ext.push_columns import converted, instant
from qanchor_plugin.feast_ext.push_rows import PushError, pushed_rows
from qanchor_plugin.feast_ext.push_view import PushedSource
from qanchor_plugin.identity import text_id
from tests.plugin.online.conftest import HOUSEHOLD, Shop, spend_view
from tests.plugin.online.push_shop import CHEESE, COLUMNS, PUSH, RAW, bought, purchases_push, pushing
from tests.shop import CLOCK, PROFILE, at, user


@pytest.fixture(autouse=True)
def in_the_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source() -> PushedSource:
    write_deltalake(RAW, COLUMNS.empty_table())
    return push_view(purchases_push(), PROFILE).batch_source


def refused(source: PushedSource, frame: pd.DataFrame) -> str:
    with pytest.raises(PushError) as caught:
        pushed_rows(source, frame, now=CLOCK)
    return str(caught.value)


def test_a_row_is_rendered_as_the_batch_renders_it(source: PushedSource):
    (row,) = pushed_rows(source, bought(CHEESE), now=CLOCK)
    assert row == {
        S.MODALITY: "purchases",
        S.MODALITY_DIGEST: PROFILE.modalities[0].sequence_digest,
        S.USER: user(1),
        S.USER_KEY: '{"household_id": 1}',
        S.EVENT_AT: at("2017-12-31T12:00:00"),
        S.KNOWN_AT: at("2018-01-01"),
        S.TEXT_ID: text_id("goat cheese"),
        S.GROUPS: text_id("dairy"),
        S.AMOUNTS: [3.0],
        S.TEXT: "goat cheese",
        S.GROUP_TEXTS: ["dairy"],
    }


def test_nulls_of_text_group_and_amount_are_events_all_the_same(source: PushedSource):
    (row,) = pushed_rows(source, bought((1, CHEESE[1], None, None, None)), now=CLOCK)
    assert (row[S.TEXT], row[S.GROUPS], row[S.GROUP_TEXTS]) == ("", bytes(16), [None])
    assert math.isnan(row[S.AMOUNTS][0])


@pytest.mark.parametrize(
    "when",
    [
        "2017-12-31T12:00:00Z",
        "2017-12-31T13:00:00+01:00",
        "2017-12-31 12:00:00",
        datetime(2017, 12, 31, 12),
        datetime(2017, 12, 31, 12, tzinfo=UTC),
        pd.Timestamp("2017-12-31 12:00:00.000000999", tz="UTC"),
        np.datetime64("2017-12-31T12:00:00"),
    ],
)
def test_an_instant_is_the_same_however_it_is_written(source: PushedSource, when):
    (row,) = pushed_rows(source, bought((1, when, *CHEESE[2:])), now=CLOCK)
    assert row[S.EVENT_AT] == at("2017-12-31T12:00:00")


def test_every_bad_row_is_named_with_its_faults(source: PushedSource):
    message = refused(
        source,
        bought(
            CHEESE,
            (None, *CHEESE[1:]),
            (2, "yesterday", 7, "dairy", "three"),
            (2, None, *CHEESE[2:]),
            (2.5, *CHEESE[1:]),
            (2, "2999-01-01T00:00:00Z", *CHEESE[2:]),
            (2, 1514721600, *CHEESE[2:]),
        ),
    )
    assert (
        "push 'purchases_push': 6 of 7 rows cannot be used (rows count from 0), so nothing was kept"
        in message
    )
    assert message.splitlines()[1:] == [
        "  - row 1: household_id: the key is null",
        "  - row 2: amount: 'three' is no double; bought_at: 'yesterday' is no timestamp[us, tz=UTC]; "
        "product: 7 is no string",
        "  - row 3: bought_at: the instant is null",
        "  - row 4: household_id: 2.5 is no int64",
        "  - row 5: bought_at: 2999-01-01T00:00:00+00:00 is in the future",
        "  - row 6: bought_at: 1514721600 is no timestamp[us, tz=UTC]",
    ]


def test_many_bad_rows_are_named_up_to_a_number(source: PushedSource):
    message = refused(source, bought(*[(None, *CHEESE[1:])] * 25))
    assert message.count("the key is null") == 10
    assert message.endswith("  - and 15 rows more")


def test_a_missing_column_is_named(source: PushedSource):
    message = refused(source, bought(CHEESE).drop(columns=["product", "category"]))
    assert "the frame has no columns ['category', 'product']; it has ['amount', 'bought_at'" in message


def test_a_refused_push_keeps_nothing_online_or_offline(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    frame = bought(CHEESE, (None, *CHEESE[1:]))
    for to in (PushMode.ONLINE, PushMode.OFFLINE, PushMode.ONLINE_AND_OFFLINE):
        with pytest.raises(PushError, match="row 1: household_id: the key is null"):
            store.push(PUSH, frame, to=to)
    assert not (sqlite_shop.lake.folder / "pushed_events").exists()
    assert DeltaTable(RAW).to_pyarrow_table().num_rows == 0


def test_an_offline_push_asks_for_all_columns_and_for_a_delta_folder(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    with pytest.raises(ValueError, match=r"missing_expected_columns: \['amount'\]"):
        store.push(PUSH, bought(CHEESE).drop(columns="amount"), to=PushMode.OFFLINE)
    parquet = SparkSource(name="files", path="files", file_format="parquet", timestamp_field="bought_at")
    profile = Profile("filed", HOUSEHOLD, [Modality("purchases", parquet, "{product}")])
    view = push_view(PushSource(name="files_push", batch_source=parquet), profile)
    with pytest.raises(DeclarationError, match=r"'files' is no Delta folder .*to=PushMode\.ONLINE"):
        view.batch_source.get_table_column_names_and_types(store.config)


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        (7.0, pa.int64(), 7),
        (2.5, pa.decimal128(10, 2), Decimal("2.50")),
        ("2.5", pa.decimal128(10, 2), Decimal("2.50")),
        ("2017-03-01", pa.date32(), date(2017, 3, 1)),
        (3, pa.float64(), 3.0),
        (np.bool_(True), pa.bool_(), True),
        (b"caf\xe9", pa.string(), "caf�"),
        (b"raw", pa.binary(), b"raw"),
    ],
)
def test_values_take_the_type_of_their_source(given, wanted, expected):
    array, faults = converted([given, None], wanted)
    assert (array.to_pylist(), faults) == ([expected, None], {})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (7.5, pa.int64()),
        (True, pa.int64()),
        (2**40, pa.int32()),
        (2.555, pa.decimal128(10, 2)),
        ("2.5", pa.float64()),
        (1, pa.bool_()),
        (1.0, pa.string()),
    ],
)
def test_values_that_would_change_are_refused(given, wanted):
    array, faults = converted([given], wanted)
    assert array.to_pylist() == [None]
    assert faults == {0: f"{given!r} is no {wanted}"}


def test_numbers_are_no_instants():
    with pytest.raises(ValueError, match="1514721600 is no instant"):
        instant(1514721600)


def test_the_registry_gives_the_push_view_back(source: PushedSource):
    back = PushedSource.from_proto(DataSourceProto.FromString(source.to_proto().SerializeToString()))
    assert back == source
    view = push_view(purchases_push(), PROFILE)
    assert [field.name for field in view.features] == ["household_id", "bought_at"]
    assert (view.name, view.online, view.stream_source) == (f"{PUSH}_events", False, purchases_push())


def test_a_push_source_over_a_table_that_no_modality_reads_is_refused():
    other = SparkSource(name="other", path="raw/other", table_format=DeltaFormat(), timestamp_field="at")
    with pytest.raises(DeclarationError, match="over 'other', which no modality of the profiles"):
        push_view(PushSource(name="lost", batch_source=other), PROFILE)


def test_two_views_of_a_push_and_a_profile_left_out_are_faults_at_apply():
    purchases, _ = PROFILE.modalities
    shelves = Profile("shelves", HOUSEHOLD, [Modality("shelves", purchases.source, "{category}")])
    anchor = anchor_view("shelf_buyer", "Do they buy dairy?", shelves)
    with pytest.raises(DeclarationError) as caught:
        check_push_views(
            [push_view(purchases_push(), PROFILE), push_view(purchases_push(), PROFILE, name="again"), anchor]
        )
    twice, left_out, _ = caught.value.faults
    assert "views ['again', 'purchases_push_events'] all take the push source 'purchases_push'" in twice
    assert "but not to the modalities ['shelves'] of profile 'shelves'" in left_out
    check_push_views([push_view(purchases_push(), [PROFILE, shelves]), anchor])


def test_a_policy_that_is_none_is_refused():
    with pytest.raises(DeclarationError, match="on_push is 'later'; accepted are"):
        anchor_view("dairy_buyer", "Do they buy dairy?", PROFILE, on_push="later")


def test_the_policy_is_in_the_registry_and_in_the_tags():
    view = anchor_view("dairy_buyer", "Dairy?", PROFILE, on_push="stale_and_recompute_behind")
    assert view.tags["qanchor.on_push"] == "stale_and_recompute_behind"
    back = AnchorSource.from_proto(
        DataSourceProto.FromString(view.batch_source.to_proto().SerializeToString())
    )
    assert back.scenario.on_push == "stale_and_recompute_behind"
    assert "on_push" not in anchor_view("dairy_buyer", "Dairy?", PROFILE).batch_source.to_json()


def test_one_push_reaches_every_modality_over_its_source(source: PushedSource):
    purchases, home = PROFILE.modalities
    shelves = Modality("shelves", purchases.source, "{category}")
    wide = Profile("wide", HOUSEHOLD, [purchases, shelves, home])
    both = push_view(purchases_push(), [PROFILE, wide]).batch_source
    rows = pushed_rows(both, bought(CHEESE), now=CLOCK)
    assert sorted(row[S.TEXT] for row in rows) == ["dairy", "goat cheese"]


def test_an_ordinary_view_is_pushed_to_as_ever(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    view = spend_view(sqlite_shop.folder)
    view.stream_source = PushSource(name="spend_push", batch_source=view.batch_source)
    sqlite_shop.register(store, view)
    store.refresh_registry()
    frame = pd.DataFrame({"household_id": [1], "total": [12.5], "at": [pd.Timestamp("2017-12-31", tz="UTC")]})
    store.push("spend_push", frame)
    found = store.get_online_features(["spend:total"], [{"household_id": 1}]).to_dict()
    assert found["total"] == [12.5]
