"""Who buys from the deli department."""

from datetime import timedelta

from feast_repo.profiles import household_journey
from qanchor_plugin.feast_ext import anchor_view

deli_buyer = anchor_view(
    name="deli_buyer",
    query="Will this household buy meat, cheese or salad at the deli?",
    profile=household_journey,
    ttl=timedelta(days=7),
    owner="assortment",
    tags={"task": "deli"},
)
