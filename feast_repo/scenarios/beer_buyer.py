"""Who buys beer."""

from datetime import timedelta

from feast_repo.profiles import household_journey
from qanchor_plugin.feast_ext import anchor_view

beer_buyer = anchor_view(
    name="beer_buyer",
    query="Will this household buy beer or ale?",
    profile=household_journey,
    ttl=timedelta(days=7),
    owner="assortment",
    tags={"task": "beer"},
)
