"""Embeddings as of each row's own instant: what a trainer reads.

Exact: the cutoff is the row's instant. Rows of one user that see the same events share a prefix, and all
queries of a prefix share one forward.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.identity import scenario_identity
from qanchor_plugin.sequence import UserHistory, UserSlice, slice_at
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from spark_jobs.build_prefixes import prefix_id_of
from spark_jobs.embed_scenarios import embedding_id_of
from spark_jobs.embedder import embedder_of
from spark_jobs.encode_events import snapshot_folder
from spark_jobs.engines import AskedGroup, AskedQuery, asked_groups, chosen, engine_ref, workers_of
from spark_jobs.resources import engine_profile
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour, histories, user_batches

ROW_ID, AT, ANCHOR_QUERY = "row_id", "at", "anchor_query"

EMBEDDED = pa.schema(
    [
        (ROW_ID, pa.int64()),
        (S.SCENARIO, pa.string()),
        (S.EMBEDDING, pa.list_(pa.float32())),
        (S.EMBEDDING_ID, pa.string()),
        (S.CUTOFF, S.INSTANT),
        (S.AS_OF, S.INSTANT),
        (S.NUM_EVENTS, pa.int32()),
    ]
)

_Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True, kw_only=True)
class ExtraQueries:
    """Queries that no scenario registered: each row brings its own in the column ``anchor_query``.

    Attributes:
        profile: name of the declared profile they are asked of.
        engine: preset or folder; None is the settings' default.
        name: what stands in the answer's ``scenario`` column.
    """

    profile: str
    engine: str | None = None
    name: str = ANCHOR_QUERY


@dataclass
class _Row:
    """A row of the caller: which, when, and its own query."""

    row_id: int
    at: int
    query: str | None


@dataclass
class _User:
    """A user of a batch: history (None when unknown) and the rows that ask for them."""

    history: UserHistory | None = None
    rows: list[_Row] = field(default_factory=list)


def embed_at(
    spark: SparkSession,
    settings: Settings,
    declarations: Declarations,
    rows: DataFrame,
    scenarios: Sequence[str],
    extra_queries: ExtraQueries | None = None,
) -> DataFrame:
    """One row a (row, scenario): ``row_id, scenario, embedding, embedding_id, cutoff, as_of, num_events``.

    Lazy: the work is done by executors when the answer is read, in ``settings.users_per_batch`` prefixes at
    a time. A null or unknown user, a null instant or a null query gives a row of nulls.

    Args:
        rows: ``row_id`` bigint, ``user`` binary, ``at`` timestamp; ``anchor_query`` string for
            ``extra_queries``.

    Raises:
        EngineError, InputDataError, DeclarationError: as in :func:`spark_jobs.refresh.refresh`. While the
        answer is read, MissingVectorsError (as a PythonException unless read within
        ``failures.named_failures``): texts that the refresh has not encoded.
    """
    lake = Lake(spark, settings)
    groups = asked_groups(settings, declarations, chosen(declarations, scenarios))
    answers = [_answered(lake, settings, group, rows, own="") for group in groups]
    if extra_queries is not None:
        group = _extra_group(settings, declarations, extra_queries)
        answers.append(_answered(lake, settings, group, rows, own=extra_queries.name))
    if not answers:
        raise DeclarationError("embed_at was asked for no scenario and no query; name one.")
    return reduce(DataFrame.unionByName, answers)


def _extra_group(settings: Settings, declarations: Declarations, extra: ExtraQueries) -> AskedGroup:
    if extra.profile not in declarations.profiles:
        raise DeclarationError(
            f"profile {extra.profile!r} is not declared; declared are {sorted(declarations.profiles)}."
        )
    ref = engine_ref(extra.engine or settings.engine, settings.device)
    profile, workers = declarations.profiles[extra.profile], workers_of(settings)
    return AskedGroup(profile=profile, engine=ref, queries=(), workers=workers)


def _answered(lake: Lake, settings: Settings, group: AskedGroup, rows: DataFrame, *, own: str) -> DataFrame:
    """The rows' answers to the group's queries, or to their own when ``own`` names those."""
    query = F.col(ANCHOR_QUERY) if own else F.lit(None).cast("string")
    asked = rows.select(
        F.col(S.USER), F.col(ROW_ID).cast("long"), F.unix_micros(AT).alias(AT), query.alias(ANCHOR_QUERY)
    )
    users = asked.select(S.USER).where(F.col(S.USER).isNotNull()).distinct()
    known = behaviour(lake, group.profile).join(users, on=S.USER, how="left_semi")
    both = known.unionByName(asked, allowMissingColumns=True)
    parts = max(2 * lake.spark.sparkContext.defaultParallelism, settings.user_buckets)
    spread = F.coalesce(F.col(S.USER), F.unhex(F.hex(ROW_ID)))  # null users are spread too
    ready = both.repartition(parts, spread).sortWithinPartitions(S.USER)
    vectors = str(snapshot_folder(lake, group.engine.encoder_id))
    make = _embedder(group, settings.users_per_batch, vectors, own)
    columns = ", ".join(
        [
            "row_id bigint, scenario string, embedding array<float>, embedding_id string",
            "cutoff timestamp, as_of timestamp, num_events int",
        ]
    )
    return ready.mapInArrow(make, columns, profile=engine_profile(lake.spark, settings))


def _embedder(group: AskedGroup, per_batch: int, vectors: str, own: str) -> Callable[[_Batches], _Batches]:
    def make(batches: _Batches) -> _Batches:
        for rows in user_batches(batches, per_batch):
            pending = list(_slices(rows, group, _null_answers(group, own)))
            answers = [answer for answer in pending if isinstance(answer, dict)]
            visible = [one for one in pending if not isinstance(one, dict)]
            yield from pa.Table.from_pylist(answers, schema=EMBEDDED).to_batches()
            for chunk in _chunks(visible, per_batch):
                made = list(_embed(chunk, group, vectors, own))
                yield from pa.Table.from_pylist(made, schema=EMBEDDED).to_batches()

    return make


def _slices(
    rows: pa.Table, group: AskedGroup, nulls: Callable[[_Row], list[dict[str, Any]]]
) -> Iterator[Any]:
    """What each asking row sees as (row, slice), or its null answers where it can see nothing."""
    for user in _users(rows, group).values():
        slices: dict[int, UserSlice] = {}
        for row in user.rows:
            if user.history is None or row.at is None:
                yield from nulls(row)
                continue
            if row.at not in slices:
                slices[row.at] = slice_at(user.history, group.profile, row.at)
            yield row, slices[row.at]


def _users(rows: pa.Table, group: AskedGroup) -> dict[bytes | None, _User]:
    asking = rows[ROW_ID].is_valid()
    columns = [rows.filter(asking)[name].to_pylist() for name in (S.USER, ROW_ID, AT, ANCHOR_QUERY)]
    users: dict[bytes | None, _User] = {}
    for user, row_id, at, query in zip(*columns, strict=True):
        users.setdefault(user, _User()).rows.append(_Row(row_id, at, query))
    for history in histories(rows.filter(rows[ROW_ID].is_null()), group.profile):
        if history.user in users:
            users[history.user].history = history
    return users


def _null_answers(group: AskedGroup, own: str) -> Callable[[_Row], list[dict[str, Any]]]:
    names = [own] if own else [query.scenario for query in group.queries]

    def answers(row: _Row) -> list[dict[str, Any]]:
        return [{ROW_ID: row.row_id, S.SCENARIO: name, S.CUTOFF: row.at} for name in names]

    return answers


def _chunks(visible: list[tuple[_Row, UserSlice]], size: int) -> Iterator[list[tuple[_Row, UserSlice]]]:
    """The rows again, so that no chunk needs more than ``size`` different prefixes."""
    chunk: list[tuple[_Row, UserSlice]] = []
    prefixes: set[tuple[bytes, str]] = set()
    for row, one in visible:
        key = (one.user, one.visible_digest)
        if key not in prefixes and len(prefixes) == size:
            yield chunk
            chunk, prefixes = [], set()
        prefixes.add(key)
        chunk.append((row, one))
    if chunk:
        yield chunk


def _embed(
    chunk: list[tuple[_Row, UserSlice]], group: AskedGroup, vectors: str, own: str
) -> Iterator[dict[str, Any]]:
    from spark_jobs.executor import engine_of, snapshot_at

    ref = group.engine
    engine = engine_of(ref.name, ref.device, ref.digest)
    distinct = {(one.user, one.visible_digest): one for _, one in chunk}
    built = engine.build_prefixes(list(distinct.values()), snapshot_at(vectors))
    prefix_of = dict(zip(distinct, built, strict=True))
    for queries, rows in _by_queries(chunk, group, own):
        if not queries:
            yield from (answer for row, _ in rows for answer in _null_answers(group, own)(row))
            continue
        seen = {_sight(row, one): ((one.user, one.visible_digest), row.at) for row, one in rows}
        made = embedder_of(group).embed(
            [prefix_of[key] for key, _ in seen.values()],
            queries,
            [at for _, at in seen.values()],
        )
        place = {sight: number for number, sight in enumerate(seen)}
        for row, one in rows:
            prefix_id = prefix_id_of(group, one.visible_digest)
            for column, query in enumerate(queries):
                yield {
                    ROW_ID: row.row_id,
                    S.SCENARIO: query.scenario,
                    S.EMBEDDING: made[place[_sight(row, one)], column],
                    S.EMBEDDING_ID: embedding_id_of(query, prefix_id, ref, row.at),
                    S.CUTOFF: row.at,
                    S.AS_OF: one.as_of,
                    S.NUM_EVENTS: one.num_events,
                }


def _sight(row: _Row, one: UserSlice) -> tuple[bytes, str, int]:
    """Rows that are equal in this have equal embeddings: an engine knows the cutoff by its day."""
    return one.user, one.visible_digest, row.at // MICROS_PER_DAY


def _by_queries(
    chunk: list[tuple[_Row, UserSlice]], group: AskedGroup, own: str
) -> Iterator[tuple[list[AskedQuery], list[tuple[_Row, UserSlice]]]]:
    """The rows by the queries asked of them: the group's for all, or each row's own."""
    if not own:
        yield list(group.queries), chunk
        return
    by_text: dict[str | None, list[tuple[_Row, UserSlice]]] = {}
    for row, one in chunk:
        by_text.setdefault(row.query, []).append((row, one))
    for text, rows in by_text.items():
        yield ([] if text is None else [_own_query(text, group, own)]), rows


def _own_query(text: str, group: AskedGroup, own: str) -> AskedQuery:
    identity = scenario_identity(
        profile_digest=group.profile.digest,
        engine_digest=group.engine.digest,
        query=text,
        soft_prompt_digest=None,
    )
    return AskedQuery(scenario=own, scenario_id=identity, query=text, soft_prompt=None)
