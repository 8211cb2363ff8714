"""One refreshed store with anchor views, on-demand views over them, and a repo folder for commands."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml
from feast import FeatureStore, FeatureView, Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int64, String
from pyspark.sql import SparkSession

from qanchor_plugin.feast_ext.declarations import declarations_from_registry, settings_from_config
from spark_jobs.refresh import refresh
from tests.plugin.conftest import CLOCK, cheese_view, journey, purchases_source, shopper
from tests.plugin.offline.anchor_store import open_store, store_body
from tests.qanchor_command import qanchor  # noqa: F401  (a fixture)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repo's folder, with feature_store.yaml."""
    folder = tmp_path_factory.mktemp("anchors")
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(store_body(folder)))
    return folder


@pytest.fixture(scope="session")
def store(base: Path, spark: SparkSession, purchases_folder: Path) -> FeatureStore:
    """Two scenarios, one of them ``as_served`` by its tag, refreshed to the clock."""
    profile = journey(purchases_folder)
    cheese = cheese_view(purchases_folder, profile=profile)
    served = cheese_view(
        purchases_folder,
        profile=profile,
        name="served",
        query="Will they leave?",
        ttl=timedelta(0),
        tags={"qanchor.mode": "as_served"},
    )

    @on_demand_feature_view(
        sources=[cheese],
        schema=[Field(name="first", dtype=Float64)],
        mode="pandas",
    )
    def first_number(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"first": [None if v is None else float(v[0]) for v in inputs["embedding"]]})

    @on_demand_feature_view(
        sources=[RequestSource(name="ask", schema=[Field(name="anchor_query", dtype=String)])],
        schema=[
            Field(name="embedding", dtype=Array(Float32)),
            Field(name="embedding_id", dtype=String),
            Field(name="num_events", dtype=Int64),
            Field(name="status", dtype=String),
        ],
        mode="pandas",
        tags={"qanchor.adhoc_profile": "journey"},
    )
    def ask_shopper(inputs: pd.DataFrame) -> pd.DataFrame:
        from qanchor_plugin.feast_ext.on_demand import answer_adhoc

        return answer_adhoc(inputs, "journey")

    spend = FeatureView(
        name="spend",
        entities=[shopper()],
        ttl=timedelta(0),
        source=purchases_source(purchases_folder),
        schema=[Field(name="price", dtype=Float64)],
    )
    made = open_store(base)
    made.apply([shopper(), cheese, served, spend, first_number, ask_shopper])
    settings = settings_from_config(made.config)
    refresh(spark, settings, declarations_from_registry(made.registry, "shop"), end=CLOCK)
    return made
