"""Who has a baby in the house."""

from datetime import timedelta

from feast_repo.profiles import household_journey
from qanchor_plugin.feast_ext import anchor_view

baby_household = anchor_view(
    name="baby_household",
    query="Does this household have a baby, and buy diapers, baby food or infant formula?",
    profile=household_journey,
    ttl=timedelta(days=7),
    owner="assortment",
    tags={"task": "baby"},
)
