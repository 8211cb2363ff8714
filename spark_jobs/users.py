"""A profile's behaviour as a stream of whole users, some at a time."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile
from qanchor_plugin.sequence import UserHistory, fold_users
from spark_jobs.tables import Lake

_ARRAYS = (S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID, S.GROUPS, S.AMOUNTS)
COLUMNS = (S.MODALITY_DIGEST, S.USER, S.USER_KEY, S.USER_BUCKET, *_ARRAYS)


def behaviour(lake: Lake, profile: Profile) -> DataFrame:
    """Rows of the profile's modalities, tabular ones as sequences of one (columns ``COLUMNS``)."""
    rows = _of(lake.read("behaviour_sequences"), profile).select(*COLUMNS)
    if not profile.tabular_modalities:
        return rows
    single = [F.array(name).alias(name) for name in (S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID)]
    empty = [
        F.array(F.lit(b"")).alias(S.GROUPS),
        F.array(F.array().cast("array<double>")).alias(S.AMOUNTS),
    ]
    keys = (S.MODALITY_DIGEST, S.USER, S.USER_KEY, S.USER_BUCKET)
    tabular = _of(lake.read("profile_rows"), profile).select(*keys, *single, *empty)
    return rows.unionByName(tabular)


def user_batches(batches: Iterator[pa.RecordBatch], num_users: int) -> Iterator[pa.Table]:
    """The rows again, each table holding whole users, ``num_users`` of them (the last maybe fewer).

    Args:
        batches: sorted by ``user``, nulls together.
    """
    held: list[pa.RecordBatch] = []
    count, last = 0, object()
    for batch in batches:
        start = 0
        for row, user in _new_users(batch, last):
            last = user
            if count == num_users:
                held.append(batch.slice(start, row - start))
                yield pa.Table.from_batches(held)
                held, count, start = [], 0, row
            count += 1
        held.append(batch.slice(start))
    if held and count:
        yield pa.Table.from_batches(held)


def histories(rows: pa.Table, profile: Profile) -> Iterator[UserHistory]:
    """The users of some behaviour rows, ascending, each folded into one history."""
    digests = [modality.sequence_digest for modality in profile.tabular_modalities]
    is_tabular = pc.is_in(rows[S.MODALITY_DIGEST], value_set=pa.array(digests, pa.string()))
    tabular = rows.filter(is_tabular)
    for name in (S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID):
        flat = pc.list_flatten(tabular[name])
        tabular = tabular.set_column(tabular.schema.get_field_index(name), name, flat)
    return fold_users(rows.filter(pc.invert(is_tabular)), tabular, profile)


def num_users(rows: DataFrame) -> int:
    """How many distinct users the rows are of."""
    return rows.agg(F.count_distinct(S.USER).alias("num")).collect()[0]["num"]


def by_user(rows: DataFrame, users: int, users_per_batch: int) -> DataFrame:
    """The rows so that each partition holds whole users in order, a few batches of them."""
    cores = rows.sparkSession.sparkContext.defaultParallelism
    batches = -(-users // users_per_batch)
    parts = min(batches, max(4 * cores, -(-batches // 4)))
    return rows.repartition(max(1, parts), S.USER).sortWithinPartitions(S.USER)


def _of(rows: DataFrame, profile: Profile) -> DataFrame:
    return rows.where(F.col(S.MODALITY_DIGEST).isin([m.sequence_digest for m in profile.modalities]))


def _new_users(batch: pa.RecordBatch, last: object) -> Iterator[tuple[int, bytes | None]]:
    """Row and user of each first row of a user within the batch."""
    for row, user in enumerate(batch.column(S.USER).to_pylist()):
        if user != last:
            last = user
            yield row, user
