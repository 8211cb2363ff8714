"""Who buys from the nutrition department."""

from datetime import timedelta

from feast_repo.profiles import household_journey
from qanchor_plugin.feast_ext import anchor_view

nutrition_buyer = anchor_view(
    name="nutrition_buyer",
    query="Will this household buy nutrition products, vitamins or health food?",
    profile=household_journey,
    ttl=timedelta(days=7),
    owner="assortment",
    tags={"task": "nutrition"},
)
