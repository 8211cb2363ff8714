"""The rows that ask about users, brought together with those users' behaviour: what each of them sees."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.sequence import Sight, UserHistory, UserSlice, sight_at, slice_of
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour, histories

ROW_ID, AT, ANCHOR_QUERY = "row_id", "at", "anchor_query"

MOST_ROWS_TOGETHER = 4096
"""Answers that an executor holds at a time."""

TASKS_A_SLOT = 8
"""Of unequal length, so that no slot waits long for another's last."""


@dataclass
class Row:
    """A row of the caller: which, when (microseconds), and its own query."""

    row_id: int
    at: int | None
    query: str | None


@dataclass
class AskingUser:
    """A user of a batch: history (None when unknown) and the rows that ask for them."""

    history: UserHistory | None = None
    rows: list[Row] = field(default_factory=list)


RowSlice = tuple[Row, UserSlice]
"""A row with what it sees; rows that see the same events hold the same slice."""


def with_behaviour(
    lake: Lake, settings: Settings, profile: Profile, rows: DataFrame, *, own: bool
) -> DataFrame:
    """Asking rows and the behaviour of their users, whole users together, in order.

    Args:
        rows: ``row_id``, ``user``, ``at``, and with ``own`` the column ``anchor_query``.
    """
    query = F.col(ANCHOR_QUERY) if own else F.lit(None).cast("string")
    asked = rows.select(
        F.col(S.USER), F.col(ROW_ID).cast("long"), F.unix_micros(AT).alias(AT), query.alias(ANCHOR_QUERY)
    )
    users = asked.select(S.USER).where(F.col(S.USER).isNotNull()).distinct()
    known = behaviour(lake, profile).join(users, on=S.USER, how="left_semi")
    both = known.unionByName(asked, allowMissingColumns=True)
    parts = max(TASKS_A_SLOT * lake.spark.sparkContext.defaultParallelism, settings.user_buckets)
    spread = F.coalesce(F.col(S.USER), F.unhex(F.hex(ROW_ID)))  # null users are spread too
    return both.repartition(parts, spread).sortWithinPartitions(S.USER)


def asking_users(rows: pa.Table, profile: Profile) -> list[AskingUser]:
    """The users of a batch of :func:`with_behaviour` that any row asks for."""
    asking = rows[ROW_ID].is_valid()
    columns = [rows.filter(asking)[name].to_pylist() for name in (S.USER, ROW_ID, AT, ANCHOR_QUERY)]
    users: dict[bytes | None, AskingUser] = {}
    for user, row_id, at, query in zip(*columns, strict=True):
        users.setdefault(user, AskingUser()).rows.append(Row(row_id, at, query))
    for history in histories(rows.filter(rows[ROW_ID].is_null()), profile):
        if history.user in users:
            users[history.user].history = history
    return list(users.values())


def blind_rows(users: list[AskingUser]) -> list[Row]:
    """The rows that can see nothing: unknown user, or no instant."""
    return [row for user in users for row in user.rows if user.history is None or row.at is None]


def sights(users: list[AskingUser], profile: Profile) -> Iterator[RowSlice]:
    """Every other row with what it sees, rows that see the same events one after another."""
    for user in users:
        if user.history is None:
            continue
        for sight, rows in rows_by_sight(user, profile):
            seen = slice_of(sight)
            yield from ((row, seen) for row in rows)


def rows_by_sight(user: AskingUser, profile: Profile) -> list[tuple[Sight, list[Row]]]:
    """A known user's rows that have an instant, those that see the same events together."""
    assert user.history is not None
    known: dict[tuple[bytes, ...], Sight] = {}
    found: dict[str, tuple[Sight, list[Row]]] = {}
    for row in user.rows:
        if row.at is None:
            continue
        sight = sight_at(user.history, profile, row.at)
        sight = known.setdefault(tuple(places.tobytes() for places in sight.places), sight)
        found.setdefault(sight.digest, (sight, []))[1].append(row)
    return list(found.values())


def chunks(visible: Iterator[RowSlice], size: int) -> Iterator[list[RowSlice]]:
    """The rows again: no chunk needs more than ``size`` prefixes, or holds more than 4,096 rows."""
    chunk: list[RowSlice] = []
    prefixes: set[tuple[bytes, str]] = set()
    for row, one in visible:
        key = (one.user, one.visible_digest)
        if len(chunk) == MOST_ROWS_TOGETHER or (key not in prefixes and len(prefixes) == size):
            yield chunk
            chunk, prefixes = [], set()
        prefixes.add(key)
        chunk.append((row, one))
    if chunk:
        yield chunk


def same_answer(row: Row, one: UserSlice) -> tuple[bytes, str, int]:
    """Rows that are equal in this have equal embeddings: an engine knows the cutoff by its day."""
    return one.user, one.visible_digest, (row.at or 0) // MICROS_PER_DAY
