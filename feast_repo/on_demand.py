"""A query that nobody registered: it stands in the request, as ``anchor_query``.

Feast keeps the function's text and nothing around it: the profile is named literally, and the one import
stands inside. The request carries ``household_id`` as an entity row does.
"""

import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Int64, String

anchor_request = RequestSource(name="anchor_request", schema=[Field(name="anchor_query", dtype=String)])


@on_demand_feature_view(
    sources=[anchor_request],
    schema=[
        Field(name="embedding", dtype=Array(Float32)),
        Field(name="embedding_id", dtype=String),
        Field(name="num_events", dtype=Int64),
        Field(name="status", dtype=String),
    ],
    mode="pandas",
    description="The embedding of a household for the question in the request",
    tags={"qanchor.adhoc_profile": "household_journey"},
)
def ad_hoc(inputs: pd.DataFrame) -> pd.DataFrame:
    from qanchor_plugin.feast_ext.on_demand import answer_adhoc

    return answer_adhoc(inputs, "household_journey")
