"""Who is about to leave: the list for a win-back offer."""

from datetime import timedelta

from feast_repo.profiles import household_journey
from qanchor_plugin.feast_ext import anchor_view

churn_risk = anchor_view(
    name="churn_risk",
    query="Will this household stop shopping here in the coming months?",
    profile=household_journey,
    ttl=timedelta(days=7),
    owner="retention",
    tags={"task": "no_purchase"},
)
