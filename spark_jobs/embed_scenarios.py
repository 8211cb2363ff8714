"""``user_prefixes`` to ``scenario_embeddings``: all scenarios of a prefix in one forward."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.accumulators import Accumulator
from pyspark.sql import DataFrame

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import LakeError
from qanchor_plugin.identity import embedding_id
from qanchor_plugin.prefix_store import PrefixEntry, entry_from_row
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from spark_jobs.build_prefixes import prefixes_of
from spark_jobs.engines import AskedGroup, AskedQuery, EngineRef
from spark_jobs.isolation import FailedUsers, apart, failed_users, told
from spark_jobs.progress import Progress, stage
from spark_jobs.resources import engine_profile
from spark_jobs.stored_keys import StoredKeys, stored_keys
from spark_jobs.tables import Lake
from spark_jobs.users import by_user, user_batches

if TYPE_CHECKING:
    from qanchor_plugin.engine import Prefix

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WANTED = "wanted"
"""Column of a user's scenarios to be answered."""

_PREFIX = (
    S.USER, S.USER_KEY, S.USER_BUCKET, S.PREFIX_ID, S.VISIBLE_DIGEST, S.AS_OF, S.NUM_EVENTS, S.NUM_TOKENS,
    S.TOKENS_DTYPE, S.TOKENS, S.POSITIONS, S.CONTENT_DIGEST,
)  # fmt: skip
_Batches = Iterator[pa.RecordBatch]


def embed(
    lake: Lake,
    settings: Settings,
    group: AskedGroup,
    wanted: DataFrame,
    *,
    end: int,
    served_at: int,
    run: str,
    progress: Progress,
) -> dict[str, Any]:
    """The wanted answers at ``end`` stand in ``scenario_embeddings``, made from the stored prefixes.

    Args:
        wanted: ``user``, ``cutoff`` and ``batch`` of their prefix, ``wanted`` scenario names; nobody else's
            prefix is read.
        end, served_at: microseconds since 1970 UTC.
        run: name of the rows written.

    Returns:
        ``{"users": …, "written": …}``, and who failed (:func:`~spark_jobs.isolation.told`).
    """
    users = wanted.count()
    if not users:
        return {"users": 0, "written": 0}
    rows = prefixes_of(lake, group.profile, group.engine)
    ready = rows.join(wanted, on=[S.USER, S.CUTOFF, S.BATCH], how="inner").select(*_PREFIX, WANTED)
    ready = by_user(ready, users, settings.users_per_batch)
    title = f"{len(group.queries)} scenarios of {group.profile.name}"
    with stage(lake.spark, progress, title, users) as done:
        failed = failed_users(lake.spark)
        keys = stored_keys(settings, group)
        make = _embedder(group, settings.users_per_batch, (end, served_at), run, done, failed, keys)
        schema, profile = lake.schema("scenario_embeddings"), engine_profile(lake.spark, settings)
        made = ready.mapInArrow(make, schema, profile=profile).persist(StorageLevel.DISK_ONLY)
        try:
            written = made.count()
            if written:
                lake.append("scenario_embeddings", made)
        finally:
            made.unpersist()
    return {"users": users, "written": written, **told(failed, num_users=users)}


def embedding_id_of(query: AskedQuery, prefix_id: str, ref: EngineRef, cutoff: int) -> str:
    """Identity of one embedding at a cutoff (microseconds)."""
    day = cutoff // MICROS_PER_DAY if ref.suffix_knows_time else None
    return embedding_id(scenario=query.scenario_id, prefix=prefix_id, suffix_day=day)


def _embedder(
    group: AskedGroup,
    users_per_batch: int,
    instants: tuple[int, int],
    run: str,
    done: Accumulator[int],
    failed: FailedUsers,
    keys: StoredKeys | None,
) -> Callable[[_Batches], _Batches]:
    end, served_at = instants

    def answers(rows: pa.Table) -> list[dict[str, Any]]:
        return [
            {
                S.SCENARIO: query.scenario,
                S.SCENARIO_ID: query.scenario_id,
                S.USER: row[S.USER],
                S.USER_KEY: row[S.USER_KEY],
                S.USER_BUCKET: row[S.USER_BUCKET],
                S.BATCH: run,
                S.CUTOFF: end,
                S.EMBEDDING_ID: identity,
                S.EMBEDDING: vector,
                S.AS_OF: row[S.AS_OF],
                S.NUM_EVENTS: row[S.NUM_EVENTS],
                S.SERVED_AT: served_at,
            }
            for row, query, identity, vector in _answers(rows.to_pylist(), group, end, keys)
        ]

    def make(batches: _Batches) -> _Batches:
        for rows in user_batches(batches, users_per_batch):
            made = apart(rows, answers, failed)
            done.add(rows.num_rows)
            yield from pa.Table.from_pylist(made, schema=S.SCENARIO_EMBEDDINGS).to_batches()

    return make


def _answers(
    rows: list[dict[str, Any]], group: AskedGroup, end: int, keys: StoredKeys | None
) -> Iterator[tuple[Any, ...]]:
    """(row, query, embedding id, vector) of every wanted answer."""
    wanted = [
        (row, query, embedding_id_of(query, row[S.PREFIX_ID], group.engine, end))
        for row in rows
        for query in group.queries
        if query.scenario in row[WANTED]
    ]
    if not wanted:
        return
    from spark_jobs.embedder import embedder_of

    row_of = {row[S.USER]: row for row, _, _ in wanted}
    users = {user: _prefix(row) for user, row in row_of.items()}
    kept = None if keys is None else keys.of(list(row_of.values()))
    place = {user: number for number, user in enumerate(users)}
    asked = {query.scenario: query for _, query, _ in wanted}
    column = {scenario: number for number, scenario in enumerate(asked)}
    prefixes, queries = list(users.values()), list(asked.values())
    vectors = embedder_of(group).embed(prefixes, queries, [end] * len(users), kept)
    for row, query, identity in wanted:
        yield row, query, identity, vectors[place[row[S.USER]], column[query.scenario]]


def _prefix(row: dict[str, Any]) -> "Prefix":
    """The engine's prefix of a stored row.

    Raises:
        LakeError: the row does not hold what was written.
    """
    entry = entry_from_row(row | {S.AS_OF: _micros(row[S.AS_OF])})
    if entry is None or not entry.is_sound(user=row[S.USER], prefix_id=row[S.PREFIX_ID]):
        raise LakeError(
            f"a stored prefix of user {row[S.USER_KEY]} is damaged (its digest differs). Delete its row from "
            "user_prefixes and run the refresh again."
        )
    return as_prefix(entry)


def as_prefix(entry: PrefixEntry) -> "Prefix":
    """The engine's own record of a stored prefix."""
    from qanchor_plugin.engine import Prefix

    return Prefix(
        user=entry.user,
        visible_digest=entry.visible_digest,
        as_of=entry.as_of,
        num_events=entry.num_events,
        tokens=entry.tokens,
        positions=entry.positions,
    )


def _micros(instant: Any) -> int | None:
    return None if instant is None else (instant - _EPOCH) // timedelta(microseconds=1)
