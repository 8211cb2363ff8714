"""Embeddings as of each row's own instant: what a trainer reads.

Exact: the cutoff is the row's instant. Rows of one user that see the same events share a prefix, which is
read once; all queries of a prefix share one forward.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from time import perf_counter

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.identity import scenario_identity
from qanchor_plugin.sequence import UserSlice
from spark_jobs.asking_rows import (
    ANCHOR_QUERY,
    AT,
    MOST_ROWS_TOGETHER,
    ROW_ID,
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
from spark_jobs.wide_answers import answers, no_answers, schema_of

_Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True, kw_only=True)
class ExtraQueries:
    """Queries that no scenario registered: each row brings its own in the column ``anchor_query``.

    Attributes:
        profile: name of the declared profile they are asked of.
        engine: preset or folder; None is the settings' default.
        name: what the answers' column is made of, as of a scenario's name.
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
    """One row a row: ``row_id``, and for each scenario a struct ``embedding, embedding_id, cutoff, as_of,
    num_events`` in the column :func:`~spark_jobs.wide_answers.answer_column` of its name.

    Lazy: the work is done by executors when the answer is read, in ``settings.users_per_batch`` prefixes at
    a time. A null or unknown user, a null instant or a null query gives a null struct.

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
    found = [_answered(lake, settings, group, rows, own="") for group in groups]
    if extra_queries is not None:
        group = _extra_group(settings, declarations, extra_queries)
        found.append(_answered(lake, settings, group, rows, own=extra_queries.name))
    if not found:
        raise DeclarationError("embed_at was asked for no scenario and no query; name one.")
    return reduce(lambda left, right: left.join(right.hint("merge"), on=ROW_ID), found)


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
    schema = from_arrow_schema(schema_of(_scenarios(group, own)))
    return ready.mapInArrow(make, schema, profile=engine_profile(lake.spark, settings))


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
                yield no_answers(part, _scenarios(group, own))
            if counts is not None:
                counts.rows.add(len(blind))
            for chunk in chunks(sights(users, group.profile), per_batch):
                yield from _embed(chunk, group, vectors, own, counts)
        if counts is not None:
            counts.task_micros.add(_micros_since(began))

    return make


def _scenarios(group: AskedGroup, own: str) -> list[str]:
    return [own] if own else [query.scenario for query in group.queries]


def _embed(
    chunk: list[RowSlice], group: AskedGroup, vectors: str, own: str, counts: RetrievalCounts | None
) -> _Batches:
    from spark_jobs.executor import engine_of, snapshot_at

    ref, embedder = group.engine, embedder_of(group)
    engine = engine_of(ref.name, ref.device, ref.digest)
    distinct = {(one.user, one.visible_digest): one for _, one in chunk}
    began = perf_counter()
    built = engine.build_prefixes(list(distinct.values()), snapshot_at(vectors))
    spent = _micros_since(began)
    prefix_of = dict(zip(distinct, built, strict=True))
    for queries, rows in _by_queries(chunk, group, own):
        if not queries:
            yield no_answers([row for row, _ in rows], _scenarios(group, own))
            continue
        seen = {same_answer(row, one): (row.at or 0, one) for row, one in rows}
        embedder.prepare(queries)
        began = perf_counter()
        made = embedder.embed(
            [prefix_of[one.user, one.visible_digest] for _, one in seen.values()],
            queries,
            [at for at, _ in seen.values()],
        )
        spent += _micros_since(began)
        place = {sight: number for number, sight in enumerate(seen)}
        places = [place[same_answer(row, one)] for row, one in rows]
        ids = _embedding_ids(list(seen.values()), queries, group)
        yield answers(rows, _scenarios(group, own), ids, made, places)
    if counts is not None:
        counts.rows.add(len(chunk))
        counts.prefills.add(len(distinct))
        counts.engine_micros.add(spent)


def _embedding_ids(
    seen: list[tuple[int, UserSlice]], queries: list[AskedQuery], group: AskedGroup
) -> list[list[str]]:
    """For each query the id of its answer to each (cutoff, slice)."""
    prefixes = [(at, prefix_id_of(group, one.visible_digest)) for at, one in seen]
    return [
        [embedding_id_of(query, prefix_id, group.engine, at) for at, prefix_id in prefixes]
        for query in queries
    ]


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


__all__ = ["ANCHOR_QUERY", "AT", "ROW_ID", "ExtraQueries", "embed_at"]
