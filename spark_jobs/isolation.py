"""A user whose rows make the engine fail is left out and named; everyone else's work is done."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.accumulators import Accumulator, AccumulatorParam
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import BackendError, EngineError, MissingVectorsError, QAnchorError

MAX_NAMED = 20
"""Failed users that ``job_runs`` names; the others are counted."""

FAILED_USERS, NUM_FAILED_USERS = "failed_users", "num_failed_users"
LEFT_OUT = "left_out"
"""Readable keys of all users who failed, for the run's later steps; not for ``job_runs``."""

_LOG = logging.getLogger(__name__)
_NOBODYS_FAULT = (EngineError, MissingVectorsError, BackendError, MemoryError, OSError, ImportError)
"""What would fail for any user: the run must stop and say so."""

FailedUsers = Accumulator[dict[str, str]]
_Made = TypeVar("_Made")


def failed_users(spark: SparkSession) -> FailedUsers:
    """An accumulator of readable key to fault."""
    return spark.sparkContext.accumulator({}, _ByUser())


def apart(rows: pa.Table, work: Callable[[pa.Table], list[_Made]], failed: FailedUsers) -> list[_Made]:
    """What ``work`` makes of the rows; where it fails, of each user's alone, and who fails then is told.

    Args:
        rows: of whole users, with ``user`` and ``user_key``.

    Raises:
        Exception: what nobody's rows are to blame for, or what befalls every one of several users.
    """
    try:
        return work(rows)
    except _NOBODYS_FAULT:
        raise
    except Exception as error:
        users = pc.unique(rows[S.USER])
        made, faults = _one_by_one(rows, users, work)
        if len(faults) == len(users) > 1:
            raise
        _LOG.warning("%d of %d users were left out after %r", len(faults), len(users), error)
        failed.add(faults)
        return made


def told(failed: FailedUsers, *, num_users: int) -> dict[str, Any]:
    """How many users failed and who, some of them with the fault; nothing when none did.

    Raises:
        QAnchorError: all of several users failed: it is not their rows.
    """
    faults = failed.value
    if not faults:
        return {}
    if len(faults) == num_users > 1:
        user, fault = next(iter(faults.items()))
        raise QAnchorError(f"every one of {num_users} users failed, such as {user}: {fault}")
    named = dict(sorted(faults.items())[:MAX_NAMED])
    return {NUM_FAILED_USERS: len(faults), FAILED_USERS: named, LEFT_OUT: sorted(faults)}


def message_of(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence on the users left out, for people; "" without any."""
    parts = []
    for group, one in counts.items():
        if FAILED_USERS in one:
            named = ", ".join(one[FAILED_USERS])
            parts.append(f"{group}: {one[NUM_FAILED_USERS]} users were left out: {named}")
    return "; ".join(parts)[:2000]


def _one_by_one(
    rows: pa.Table, users: pa.Array, work: Callable[[pa.Table], list[_Made]]
) -> tuple[list[_Made], dict[str, str]]:
    made: list[_Made] = []
    faults: dict[str, str] = {}
    for user in users:
        own = rows.filter(pc.equal(rows[S.USER], user))
        try:
            made += work(own)
        except _NOBODYS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001  # whatever these rows do, they do it to this user alone
            faults[own[S.USER_KEY][0].as_py()] = f"{type(error).__name__}: {error}"[:200]
    return made, faults


class _ByUser(AccumulatorParam["dict[str, str]"]):
    """Faults by user: a task that runs twice tells them once."""

    def zero(self, value: dict[str, str]) -> dict[str, str]:
        """Nobody."""
        return {}

    def addInPlace(self, one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
        """The users of both."""
        return {**one, **other}
