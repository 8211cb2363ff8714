"""What a trainer and a scorer read: anchors and ordinary features in one call.

Anchors share field names, so read these with ``full_feature_names=True``.
"""

from feast import FeatureService

from feast_repo.features import demographics, spend
from feast_repo.scenarios.baby_household import baby_household
from feast_repo.scenarios.beer_buyer import beer_buyer
from feast_repo.scenarios.churn_risk import churn_risk
from feast_repo.scenarios.coupon_redeemer import coupon_redeemer
from feast_repo.scenarios.deli_buyer import deli_buyer
from feast_repo.scenarios.nutrition_buyer import nutrition_buyer
from feast_repo.scenarios.pet_owner import pet_owner

household_training = FeatureService(
    name="household_training",
    features=[
        coupon_redeemer[["embedding"]],
        churn_risk[["embedding"]],
        nutrition_buyer[["embedding"]],
        deli_buyer[["embedding"]],
        pet_owner[["embedding"]],
        baby_household[["embedding"]],
        beer_buyer[["embedding"]],
        demographics,
        spend,
    ],
    description="Batch: every scenario as of each row's instant, with demographics and spend",
)

household_scoring = FeatureService(
    name="household_scoring",
    features=[
        coupon_redeemer[["embedding", "status", "data_as_of"]],
        churn_risk[["embedding", "status", "data_as_of"]],
        spend[["total", "last_30_days"]],
    ],
    description="Online: what the coupon and churn scorers read",
)
