"""What is asked for the evaluation: right, reworded, one question for all; the wrong one is a neighbour's."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from feast_repo.demo.reads import SCENARIO_OF_TASK
from feast_repo.evaluation.paraphrases import FIXED_QUERY, PARAPHRASES
from feast_repo.scenarios.baby_household import baby_household
from feast_repo.scenarios.beer_buyer import beer_buyer
from feast_repo.scenarios.churn_risk import churn_risk
from feast_repo.scenarios.coupon_redeemer import coupon_redeemer
from feast_repo.scenarios.deli_buyer import deli_buyer
from feast_repo.scenarios.nutrition_buyer import nutrition_buyer
from feast_repo.scenarios.pet_owner import pet_owner
from qanchor_plugin.evaluation.tasks import TASKS
from qanchor_plugin.feast_ext.anchor_source import AnchorSource

Vectors = Mapping[str, npt.NDArray[np.float32]]
"""(n, 128) by the name of what was asked."""

FIXED = "fixed"
NUM_PARAPHRASES = 5
_VIEWS = (coupon_redeemer, churn_risk, nutrition_buyer, deli_buyer, pet_owner, baby_household, beer_buyer)


def right_queries() -> dict[str, str]:
    """By task, the query of its scenario as it is declared."""
    declared = {
        view.name: view.batch_source.scenario.query
        for view in _VIEWS
        if isinstance(view.batch_source, AnchorSource)
    }
    return {task: declared[SCENARIO_OF_TASK[task]] for task in TASKS}


def questions() -> dict[str, str]:
    """All 43 by name: ``redeem``, ``redeem_1`` to ``redeem_5`` and so on, and ``fixed``."""
    asked = dict(right_queries())
    for task in TASKS:
        for number, wording in enumerate(PARAPHRASES[task], start=1):
            asked[f"{task}_{number}"] = wording
    return asked | {FIXED: FIXED_QUERY}


def wrong_task(task: str) -> str:
    """The task whose right query is the wrong one here: the next, the last's is the first."""
    return TASKS[(TASKS.index(task) + 1) % len(TASKS)]


def by_kind(vectors: Vectors) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Features by task, for each way of asking: right, wrong, fixed, wording 1 to 5."""
    kinds = {
        "right": {task: vectors[task] for task in TASKS},
        "wrong": {task: vectors[wrong_task(task)] for task in TASKS},
        "fixed": dict.fromkeys(TASKS, vectors[FIXED]),
    }
    for number in range(1, NUM_PARAPHRASES + 1):
        kinds[f"wording {number}"] = {task: vectors[f"{task}_{number}"] for task in TASKS}
    return kinds
