"""The shop with a purchases source that takes pushes: a real Delta table, a push view, both policies."""

from datetime import timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
from deltalake import write_deltalake
from feast import FeatureStore, FeatureView, PushSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat

from qanchor_plugin import schemas as S
from qanchor_plugin.feast_ext import anchor_view, push_view
from qanchor_plugin.feast_ext.online_rows import Anchor
from tests.plugin.online.conftest import QUERIES, Shop, read
from tests.shop import PROFILE, at, user

PUSH = "purchases_push"
RAW = "raw/purchases"
COLUMNS = pa.schema(
    [
        ("household_id", pa.int64()),
        ("bought_at", pa.timestamp("us", tz="UTC")),
        ("product", pa.string()),
        ("category", pa.string()),
        ("amount", pa.float64()),
    ]
)
FEATURES = ["embedding", "embedding_id", "status", "num_events", "data_as_of"]


def purchases_push() -> PushSource:
    """The push source over the profile's own purchases."""
    batch = SparkSource(
        name="raw_purchases", path=RAW, table_format=DeltaFormat(), timestamp_field="bought_at"
    )
    return PushSource(name=PUSH, batch_source=batch)


def views() -> list[FeatureView]:
    """One view a policy, and the view that takes the pushes."""
    return [
        push_view(purchases_push(), PROFILE),
        anchor_view("dairy_buyer", QUERIES["dairy_buyer"], PROFILE, timedelta(days=7)),
        anchor_view(
            "wine_buyer",
            QUERIES["wine_buyer"],
            PROFILE,
            timedelta(days=7),
            on_push="stale_and_recompute_behind",
        ),
    ]


def pushing(shop: Shop, **settings: Any) -> FeatureStore:
    """The shop's store with the push view registered and the source's table there.

    The process must stand in the shop's folder: the source's path is relative, as a Feast source's is.
    """
    write_deltalake(shop.folder / RAW, COLUMNS.empty_table())
    shop.lake.append("scenario_embeddings", [])
    store = shop.store(**settings)
    shop.register(store, *views())
    store.refresh_registry()
    return store


def bought(*rows: tuple[Any, Any, Any, Any, Any]) -> pd.DataFrame:
    """Raw source rows."""
    return pd.DataFrame(rows, columns=COLUMNS.names)


CHEESE = (1, "2017-12-31T12:00:00Z", "goat cheese", "dairy", 3.0)
"""A product and a day that nothing in the lake has."""


def batch_brings(shop: Shop, *rows: tuple[Any, Any, Any, Any, Any]) -> None:
    """Afterwards the sequences hold the rows, as a refresh writes them."""
    from tests.shop import sequence_row

    for household_id, when, product, category, amount in rows:
        row = sequence_row(household_id, [("2017-12-31", product, category, amount)])
        instant = at(str(when).removesuffix("Z"))
        row |= {S.EVENT_AT: [instant], S.KNOWN_AT: [instant]}
        shop.lake.append("behaviour_sequences", [row])
        shop.lake.add_texts([product, category])


def answer(store: FeatureStore, view: str = "dairy_buyer", household_id: int = 1) -> dict[str, Any]:
    """The view's features of one household."""
    found = read(store, [f"{view}:{name}" for name in FEATURES], [{"household_id": household_id}])
    return {name: found[f"{view}__{name}"][0] for name in FEATURES}


def computed_afresh(store: FeatureStore, view: str = "dairy_buyer", household_id: int = 1) -> Any:
    """What a backend without any memory answers now."""
    from qanchor_plugin.backend import LocalBackend
    from qanchor_plugin.prefix_store import LakeTables

    settings = store.provider.settings
    backend = LocalBackend(settings, tables=LakeTables(settings.lake, max_age_seconds=0))
    ask = Anchor.of(store.get_feature_view(view)).ask("demo")
    return backend.embed([user(household_id)], at("2018-01-01"), [ask])[0][0]
