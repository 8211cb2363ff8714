"""Source rows without those of users who asked to be forgotten: no refresh brings them back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType

from qanchor_plugin.declare import EntityRef
from qanchor_plugin.prefix_store.forgotten import ForgottenUsers
from spark_jobs.identity import encode_users, key_column


def without_forgotten(rows: DataFrame, entities: Sequence[EntityRef], lake: str | Path) -> DataFrame:
    """The rows of users who are not on the lake's list of the forgotten; all of them where it is empty.

    Args:
        rows: have every entity's join key as a column.
    """
    listed = ForgottenUsers(lake)
    if not len(listed):
        return rows
    keys = F.struct(*[key_column(entity).alias(entity.join_key) for entity in entities])
    is_listed = F.arrow_udf(_judge(tuple(entities), listed), returnType=BooleanType())  # type: ignore[call-overload]
    return rows.where(~is_listed(keys))


def _judge(entities: tuple[EntityRef, ...], listed: ForgottenUsers) -> Any:
    def judge(keys: pa.Array) -> pa.Array:
        users, _ = encode_users([keys.field(number).to_pylist() for number in range(len(entities))], entities)
        known = {user: user is not None and user in listed for user in set(users)}
        return pa.array([known[user] for user in users], pa.bool_())

    # Spark reads the kind of an Arrow UDF from its annotations.
    judge.__annotations__ = {"keys": pa.Array, "return": pa.Array}
    return judge
