"""What an exact read would have to do, counted without an engine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.declare import Declarations, Profile, Settings
from spark_jobs.asking_rows import asking_users, blind_rows, rows_by_sight, with_behaviour
from spark_jobs.engines import asked_groups, chosen
from spark_jobs.tables import Lake
from spark_jobs.users import user_batches

_COUNTS = ("users", "rows", "blind", "prefills")
_Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True, kw_only=True)
class PlannedRead:
    """What one profile and engine would be asked.

    Attributes:
        name: profile and engine.
        scenarios: how many.
        users: distinct users that rows name, unknown ones among them.
        rows: rows.
        blind: rows of unknown users or without an instant.
        prefills: distinct (user, visible events): what the engine has to read.
    """

    name: str
    scenarios: int
    users: int
    rows: int
    blind: int
    prefills: int


def plan_embed_at(
    spark: SparkSession,
    settings: Settings,
    declarations: Declarations,
    rows: DataFrame,
    scenarios: Sequence[str],
) -> list[PlannedRead]:
    """What :func:`spark_jobs.point_in_time.embed_at` of the same arguments would do, one record a group."""
    lake = Lake(spark, settings)
    planned = []
    for group in asked_groups(settings, declarations, chosen(declarations, scenarios)):
        ready = with_behaviour(lake, settings, group.profile, rows, own=False)
        counted = ready.mapInArrow(
            _counter(group.profile, settings.users_per_batch), ", ".join(f"{name} bigint" for name in _COUNTS)
        )
        sums = counted.agg(*[F.coalesce(F.sum(name), F.lit(0)).alias(name) for name in _COUNTS]).collect()[0]
        planned.append(PlannedRead(name=group.name, scenarios=len(group.queries), **sums.asDict()))
    return planned


def _counter(profile: Profile, per_batch: int) -> Callable[[_Batches], _Batches]:
    def count(batches: _Batches) -> _Batches:
        for rows in user_batches(batches, per_batch):
            users = asking_users(rows, profile)
            known = [user for user in users if user.history is not None]
            found = {
                "users": len(users),
                "rows": sum(len(user.rows) for user in users),
                "blind": len(blind_rows(users)),
                "prefills": sum(len(rows_by_sight(user, profile)) for user in known),
            }
            yield pa.RecordBatch.from_pylist([found])

    return count
