"""A user of two keys, such as a shopper's card in one shop: neither key alone is the user."""

from datetime import UTC, datetime, timedelta

import numpy as np
from feast import Entity, FeatureStore, ValueType
from feast.inference import update_feature_views_with_inferred_features_and_entities
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile
from qanchor_plugin.feast_ext.anchor_view import anchor_view
from qanchor_plugin.feast_ext.online_rows import Anchor
from tests.plugin.online.conftest import Shop, read, vector
from tests.shop import HOME, PURCHASES, sequence_row

SHOP = Entity(name="shop", join_keys=["shop_name"], value_type=ValueType.STRING)
CARD = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
BY_CARD = Profile("by_card", [SHOP, CARD], [PURCHASES, HOME], window=timedelta(days=30))


def card_key(shop_name: str, card_id: int) -> EntityKey:
    values = [Value(string_val=shop_name), Value(int64_val=card_id)]
    return EntityKey(join_keys=["shop_name", "card_id"], entity_values=values)


def with_cards(shop: Shop) -> FeatureStore:
    """Card 1 bought in two shops: three things in ``a``, one in ``b``."""
    store = shop.store()
    bought = {
        ("a", 1): [("2017-12-10", "whole milk", "dairy", 2.0)] * 3,
        ("b", 1): [("2017-12-15", "red wine", "drinks", 12.0)],
    }
    rows = [
        {**sequence_row(1, events), S.USER: serialize_entity_key(card_key(*key), 3), S.USER_KEY: str(key)}
        for key, events in bought.items()
    ]
    shop.lake.append("behaviour_sequences", rows)
    view = anchor_view("dairy_card", "Is dairy bought on this card?", BY_CARD, timedelta(days=7))
    entities = [SHOP, CARD]
    for entity in entities:
        store.registry.apply_entity(entity, "shop")
    update_feature_views_with_inferred_features_and_entities(store.provider, [view], entities, store.config)
    store.registry.apply_feature_view(view, "shop")
    kept = [store.get_feature_view("dairy_card")]
    store.provider.online_store.update(store.config, [], kept, [], entities, partial=True)
    store.refresh_registry()
    return store


def test_misses_and_stored_rows_are_those_of_the_whole_key(shop: Shop):
    store = with_cards(shop)
    features = [f"dairy_card:{name}" for name in ("num_events", "status", "embedding")]
    rows = [
        {"card_id": 1, "shop_name": "b"},
        {"card_id": 1, "shop_name": "a"},
        {"card_id": 2, "shop_name": "a"},
    ]
    found = read(store, features, rows)
    assert found["dairy_card__num_events"] == [1, 3, None]
    assert found["dairy_card__status"] == ["computed", "computed", "unknown"]
    wine, milk = (np.array(found["dairy_card__embedding"][row]) for row in (0, 1))
    assert np.abs(wine - milk).max() > 1e-3

    store.provider.write_back.flush()
    view = store.get_feature_view("dairy_card")
    features_stored = {
        "embedding": Value(float_list_val=FloatList(val=vector(3))),
        "embedding_id": Value(string_val=f"{Anchor.of(view).scenario_id[:16]}-{'a' * 16}"),
        "cutoff": Value(unix_timestamp_val=round(datetime(2018, 1, 1, tzinfo=UTC).timestamp())),
        "num_events": Value(int64_val=9),
        "status": Value(string_val="stored"),
    }
    row = (card_key("a", 1), features_stored, datetime.now(UTC) + timedelta(minutes=1), None)
    store.provider.online_write_batch(store.config, view, [row], None)
    again = read(store, features, rows)
    assert again["dairy_card__num_events"] == [1, 9, None]
    assert again["dairy_card__status"] == ["stored", "stored", "unknown"]
    assert again["dairy_card__embedding"][1] == vector(3)
