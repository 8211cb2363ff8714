"""Which behaviour describes a household: declared once, read once, asked by every scenario."""

from datetime import timedelta

from feast_repo import sources
from feast_repo.entities import household
from qanchor_plugin.declare import Modality, Profile

household_journey = Profile(
    "household_journey",
    household,
    [
        Modality(
            "purchases",
            sources.purchases,
            "{brand} {product_type} {product_category}",
            group_by=("product_category", "department"),
            amounts=("sales_value", "retail_disc"),
            max_events=64,
        ),
        Modality(
            "campaigns",
            sources.campaigns,
            "received the coupon campaign {campaign_type}",
            group_by=("campaign_type",),
            max_events=16,
        ),
        Modality(
            "redemptions",
            sources.redemptions,
            "redeemed a coupon for {product_category}",
            group_by=("product_category",),
            max_events=32,
        ),
        Modality(
            "demographics",
            sources.demographics,
            "age {age} income {income} {home_ownership} {marital_status} {household_comp} {kids_count} kids",
            kind="tabular",
            static=True,
        ),
    ],
    window=timedelta(days=365),
)
