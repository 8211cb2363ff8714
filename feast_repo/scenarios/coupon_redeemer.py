"""Who answers coupons: the audience of the next campaign."""

from datetime import timedelta

from feast_repo.profiles import household_journey
from qanchor_plugin.feast_ext import anchor_view

coupon_redeemer = anchor_view(
    name="coupon_redeemer",
    query="Will this household redeem a coupon in the next two months?",
    profile=household_journey,
    ttl=timedelta(days=7),
    owner="growth",
    tags={"task": "redeem"},
)
