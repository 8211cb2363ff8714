"""Who keeps a dog or a cat."""

from datetime import timedelta

from feast_repo.profiles import household_journey
from qanchor_plugin.feast_ext import anchor_view

pet_owner = anchor_view(
    name="pet_owner",
    query="Does this household keep a dog or a cat, and buy dog food, cat food or cat litter?",
    profile=household_journey,
    ttl=timedelta(days=7),
    owner="assortment",
    tags={"task": "pet"},
)
