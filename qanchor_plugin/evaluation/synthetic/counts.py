"""Baseline features of the synthetic world: what counting gives, and what the truth would give."""

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qanchor_plugin.evaluation.synthetic.events import MICROS_PER_DAY
from qanchor_plugin.evaluation.synthetic.tasks import SYNTHETIC_TASKS
from qanchor_plugin.evaluation.synthetic.vocabulary import MODALITIES, NUM_ITEMS, items

Float64 = npt.NDArray[np.float64]
NEVER_DAYS = 400.0


def world_labels(labels: pa.Table) -> dict[str, npt.NDArray[np.bool_]]:
    """By task, (U,) bool, ascending by user."""
    positive = labels["positive"].to_numpy().astype(bool).reshape(-1, len(SYNTHETIC_TASKS))
    return {task.name: positive[:, column] for column, task in enumerate(SYNTHETIC_TASKS)}


def world_truth(truth: pa.Table) -> dict[str, Float64]:
    """By task, (U,) true propensities; their AUC is the most that any model can reach."""
    chance = truth["propensity"].to_numpy().reshape(-1, len(SYNTHETIC_TASKS))
    return {task.name: chance[:, column] for column, task in enumerate(SYNTHETIC_TASKS)}


def world_counts(tables: Mapping[str, pa.Table], cutoff: datetime, num_users: int) -> Float64:
    """(U, 27): by modality counts of all, 90 and 30 days, recency, distinct things; money; tabular."""
    at = round(cutoff.timestamp() * 1_000_000)
    columns = []
    for name in MODALITIES:
        user, age = _user_and_age(tables[name], at)
        columns += [np.log1p(np.bincount(user[age < days], minlength=num_users)) for days in (1e9, 90, 30)]
        newest = np.full(num_users, NEVER_DAYS)
        np.minimum.at(newest, user, age)
        columns.append(np.log1p(newest))
        things = np.unique(user * len(items()) + _things(tables[name]))
        columns.append(np.log1p(np.bincount(things // len(items()), minlength=num_users)))
    payments = tables["payments"]
    spent = np.bincount(
        payments["user_id"].to_numpy(), weights=payments["amount"].to_numpy(), minlength=num_users
    )
    columns += [np.log1p(spent), tables["tabular"]["tenure_months"].to_numpy().astype(np.float64)]
    return np.column_stack(columns)


def world_thing_counts(tables: Mapping[str, pa.Table], num_users: int) -> Float64:
    """(U, 250): log(1 + events) of each thing over all modalities (the category counts of this world)."""
    counts = np.zeros(num_users * len(items()))
    for name in MODALITIES:
        places = tables[name]["user_id"].to_numpy() * len(items()) + _things(tables[name])
        counts += np.bincount(places, minlength=len(counts))
    return np.log1p(counts.reshape(num_users, len(items())))


def _user_and_age(table: pa.Table, at: int) -> tuple[npt.NDArray[np.int64], Float64]:
    micros = table["event_timestamp"].cast(pa.int64()).to_numpy()
    return table["user_id"].to_numpy(), (at - micros) / MICROS_PER_DAY


def _things(table: pa.Table) -> npt.NDArray[np.int64]:
    place = {item: index for num in (0, NUM_ITEMS) for index, item in enumerate(items(num).tolist())}
    coded = table["thing"].combine_chunks().dictionary_encode()
    return np.array([place[one] for one in coded.dictionary.to_pylist()], np.int64)[coded.indices.to_numpy()]
