"""Embeddings as of each row's own instant: what a trainer reads.

Exact: the cutoff is the row's instant. Rows of one user that see the same events share a prefix, which is
read once; all queries of a prefix share one forward.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from time import perf_counter
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.identity import scenario_identity
from qanchor_plugin.sequence import UserSlice
from spark_jobs.asking_rows import (
    ANCHOR_QUERY,
    AT,
    MOST_ROWS_TOGETHER,
    ROW_ID,
    Row,
    RowSlice,
    asking_users,
    blind_rows,
    chunks,
    same_answer,
    sights,
    with_behaviour,
)
from spark_jobs.build_prefixes import prefix_id_of
from spark_jobs.embed_scenarios import embedding_id_of
from spark_jobs.embedder import embedder_of
from spark_jobs.encode_events import current_snapshot, snapshot_folder
from spark_jobs.engines import AskedGroup, AskedQuery, asked_groups, chosen, engine_ref, workers_of
from spark_jobs.resources import engine_profile
from spark_jobs.retrieval_counts import RetrievalCounts, current_counts
from spark_jobs.tables import Lake
from spark_jobs.users import user_batches

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
    ready = with_behaviour(lake, settings, group.profile, rows, own=bool(own))
    # The snapshot's own folder: executors keep what they opened, and CURRENT comes to name another.
    encoder = group.engine.encoder_id
    vectors = str(current_snapshot(lake, encoder) or snapshot_folder(lake, encoder))
    make = _embedder(group, settings.users_per_batch, vectors, own, current_counts())
    columns = ", ".join(
        [
            "row_id bigint, scenario string, embedding array<float>, embedding_id string",
            "cutoff timestamp, as_of timestamp, num_events int",
        ]
    )
    return ready.mapInArrow(make, columns, profile=engine_profile(lake.spark, settings))


def _embedder(
    group: AskedGroup, per_batch: int, vectors: str, own: str, counts: RetrievalCounts | None
) -> Callable[[_Batches], _Batches]:
    def make(batches: _Batches) -> _Batches:
        began = perf_counter()
        for rows in user_batches(batches, per_batch):
            users = asking_users(rows, group.profile)
            blind = blind_rows(users)
            for start in range(0, len(blind), MOST_ROWS_TOGETHER):
                part = blind[start : start + MOST_ROWS_TOGETHER]
                yield from _batches_of(answer for row in part for answer in _null_answers(row, group, own))
            if counts is not None:
                counts.rows.add(len(blind))
            for chunk in chunks(sights(users, group.profile), per_batch):
                yield from _batches_of(_embed(chunk, group, vectors, own, counts))
        if counts is not None:
            counts.task_micros.add(_micros_since(began))

    return make


def _batches_of(answers: Iterable[dict[str, Any]]) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist(list(answers), schema=EMBEDDED).to_batches()


def _null_answers(row: Row, group: AskedGroup, own: str) -> list[dict[str, Any]]:
    names = [own] if own else [query.scenario for query in group.queries]
    return [{ROW_ID: row.row_id, S.SCENARIO: name, S.CUTOFF: row.at} for name in names]


def _embed(
    chunk: list[RowSlice], group: AskedGroup, vectors: str, own: str, counts: RetrievalCounts | None
) -> Iterator[dict[str, Any]]:
    from spark_jobs.executor import engine_of, snapshot_at

    ref = group.engine
    engine = engine_of(ref.name, ref.device, ref.digest)
    distinct = {(one.user, one.visible_digest): one for _, one in chunk}
    began = perf_counter()
    built = engine.build_prefixes(list(distinct.values()), snapshot_at(vectors))
    spent = _micros_since(began)
    prefix_of = dict(zip(distinct, built, strict=True))
    for queries, rows in _by_queries(chunk, group, own):
        if not queries:
            yield from (answer for row, _ in rows for answer in _null_answers(row, group, own))
            continue
        seen = {same_answer(row, one): ((one.user, one.visible_digest), row.at) for row, one in rows}
        began = perf_counter()
        made = embedder_of(group).embed(
            [prefix_of[key] for key, _ in seen.values()],
            queries,
            [at or 0 for _, at in seen.values()],
        )
        spent += _micros_since(began)
        place = {sight: number for number, sight in enumerate(seen)}
        for row, one in rows:
            yield from _row_answers(row, one, queries, made[place[same_answer(row, one)]], group)
    if counts is not None:
        counts.rows.add(len(chunk))
        counts.prefills.add(len(distinct))
        counts.engine_micros.add(spent)


def _row_answers(
    row: Row, one: UserSlice, queries: list[AskedQuery], vectors: Any, group: AskedGroup
) -> Iterator[dict[str, Any]]:
    prefix_id = prefix_id_of(group, one.visible_digest)
    for query, vector in zip(queries, vectors, strict=True):
        yield {
            ROW_ID: row.row_id,
            S.SCENARIO: query.scenario,
            S.EMBEDDING: vector,
            S.EMBEDDING_ID: embedding_id_of(query, prefix_id, group.engine, row.at or 0),
            S.CUTOFF: row.at,
            S.AS_OF: one.as_of,
            S.NUM_EVENTS: one.num_events,
        }


def _micros_since(began: float) -> int:
    return round((perf_counter() - began) * 1_000_000)


def _by_queries(
    chunk: list[RowSlice], group: AskedGroup, own: str
) -> Iterator[tuple[list[AskedQuery], list[RowSlice]]]:
    """The rows by the queries asked of them: the group's for all, or each row's own."""
    if not own:
        yield list(group.queries), chunk
        return
    by_text: dict[str | None, list[RowSlice]] = {}
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


__all__ = ["ANCHOR_QUERY", "AT", "EMBEDDED", "ROW_ID", "ExtraQueries", "embed_at"]
