"""Anchor views as of entity rows: asked of Spark once for each kind of user, joined by row number."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING

from feast import FeatureView
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Declarations, EntityRef, Profile, Settings
from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.feast_ext.asof_join import quoted
from qanchor_plugin.feast_ext.entity_rows import ROW, EntityRows
from qanchor_plugin.feast_ext.tags import MODE

if TYPE_CHECKING:
    from spark_jobs.plan_point_in_time import PlannedRead

AS_SERVED, EXACT = "as_served", "exact"
OUTSIDE_TTL = "outside_ttl"
_FORCED: ContextVar[str | None] = ContextVar("forced_mode", default=None)
_ANSWER, _ANSWER_ROW = "__qanchor_answer", "row_id"


@dataclass(frozen=True, kw_only=True)
class AnchorRequest:
    """One anchor view of a call.

    Attributes:
        view: as Feast projects it: renamed keys and versions included.
        features: feature name -> column name in the answer.
    """

    view: FeatureView
    features: Mapping[str, str]

    @property
    def source(self) -> AnchorSource:
        """The view's declaration."""
        assert isinstance(self.view.batch_source, AnchorSource)
        return self.view.batch_source

    def mode(self, default: str) -> str:
        """``exact`` or ``as_served``: what the caller forces, else the view's tag, else the declared mode,
        else the store's."""
        return _FORCED.get() or self.view.tags.get(MODE) or self.source.scenario.mode or default

    def columns_of_keys(self) -> tuple[tuple[EntityRef, str], ...]:
        """Each entity with the column of the entity rows that holds its key."""
        renamed = self.view.projection.join_key_map
        return tuple((one, renamed.get(one.join_key, one.join_key)) for one in self.source.profile.entities)


@contextlib.contextmanager
def forced_mode(mode: str | None) -> Iterator[None]:
    """Within the block every anchor view is read in this mode: Feast's call has no argument for it."""
    token = _FORCED.set(mode)
    try:
        yield
    finally:
        _FORCED.reset(token)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Requests that one call can answer: the same users, mode and version."""

    users: tuple[tuple[EntityRef, str], ...]
    mode: str
    requests: list[AnchorRequest] = field(default_factory=list)

    def declared(self) -> tuple[Declarations, list[str]]:
        """The record that jobs are handed, and the scenarios' names."""
        sources = [request.source for request in self.requests]
        scenarios = {source.scenario.name: source.scenario for source in sources}
        profiles = [source.profile for source in sources]
        return Declarations.of("asked", profiles, scenarios.values()), list(scenarios)


def join_anchors(
    settings: Settings, entity: EntityRows, requests: Sequence[AnchorRequest], *, default_mode: str
) -> EntityRows:
    """The rows with every requested anchor feature beside them; users nobody knows have nulls.

    Args:
        default_mode: for views that say nothing: ``exact`` or ``as_served``.
    """
    answered = [_features(settings, entity, group) for group in _groups(requests, default_mode)]
    if not answered:
        return entity
    # 128 numbers an answer, whose size Spark does not know: never to be sent to every task.
    together = reduce(lambda left, right: left.join(right.hint("merge"), on=_ANSWER), answered)
    return replace(entity, rows=_beside(entity.rows, together).drop(_ANSWER))


def plan_anchors(
    settings: Settings, entity: EntityRows, requests: Sequence[AnchorRequest], *, default_mode: str
) -> "list[PlannedRead]":
    """What the exact views among the requests would have to read; lookups need nothing."""
    from spark_jobs.plan_point_in_time import plan_embed_at

    planned = []
    for group in _groups(requests, default_mode):
        if group.mode == AS_SERVED:
            continue
        declared, names = group.declared()
        asked = _users(entity, group.users)
        planned += plan_embed_at(entity.rows.sparkSession, settings, declared, asked, names)
    return planned


def known_users(settings: Settings, rows: DataFrame, request: AnchorRequest) -> DataFrame:
    """The distinct keys of every user in the sequences, named as entity rows name them.

    Args:
        rows: any frame of the session.
    """
    from spark_jobs.tables import Lake

    lake = Lake(rows.sparkSession, settings)
    digests = [modality.sequence_digest for modality in request.source.profile.modalities]
    found = [
        lake.read(name).where(F.col(S.MODALITY_DIGEST).isin(digests)).select(S.USER_KEY)
        for name in ("behaviour_sequences", "profile_rows")
    ]
    users = found[0].unionByName(found[1]).distinct()
    return users.select(*key_columns(request.columns_of_keys()))


def key_columns(users: Sequence[tuple[EntityRef, str]]) -> list[Column]:
    """The keys out of a readable ``user_key``, in their own types, named as entity rows name them."""
    from spark_jobs.identity import SPARK_TYPES

    columns = []
    for entity, name in users:
        text = F.get_json_object(S.USER_KEY, f"$['{entity.join_key}']")
        if entity.value_type == "BYTES":
            columns.append(F.unhex(text).alias(name))
        else:
            columns.append(text.try_cast(SPARK_TYPES[entity.value_type]).alias(name))
    return columns


def with_adhoc(
    settings: Settings, entity: EntityRows, profile: Profile, *, query_column: str, output: str
) -> EntityRows:
    """The rows with the embedding of each row's own query, as of its instant; null for unknown users."""
    from spark_jobs.point_in_time import ExtraQueries, embed_at
    from spark_jobs.wide_answers import answer_column

    users = tuple((one, one.join_key) for one in profile.entities)
    asked = _users(entity, users, quoted(query_column).cast("string").alias("anchor_query"))
    declared = Declarations.of("adhoc", [profile], [])
    own = ExtraQueries(profile=profile.name)
    answers = embed_at(entity.rows.sparkSession, settings, declared, asked, [], own).select(
        F.col(_ANSWER_ROW).alias(_ANSWER),
        F.col(f"{answer_column(own.name)}.{S.EMBEDDING}").alias(output),
    )
    return replace(entity, rows=_beside(entity.rows, answers).drop(_ANSWER))


def _groups(requests: Sequence[AnchorRequest], default_mode: str) -> list[_Group]:
    groups: dict[tuple[object, ...], _Group] = {}
    for request in requests:
        users, mode = request.columns_of_keys(), request.mode(default_mode)
        key = (users, mode, request.view.projection.version_tag)
        groups.setdefault(key, _Group(users=users, mode=mode)).requests.append(request)
    return list(groups.values())


def _features(settings: Settings, entity: EntityRows, group: _Group) -> DataFrame:
    """The group's features of every row, named as the answer names them, and the row's number."""
    from spark_jobs.wide_answers import answer_column

    declared, scenarios = group.declared()
    answers = _answers(settings, declared, _users(entity, group.users), scenarios, group.mode)
    features = [
        _feature(answer_column(request.source.scenario.name), feature, group.mode).alias(output)
        for request in group.requests
        for feature, output in request.features.items()
    ]
    return answers.select(F.col(_ANSWER_ROW).alias(_ANSWER), *features)


def _beside(rows: DataFrame, answers: DataFrame) -> DataFrame:
    """Each row with its answers, which every row has: columns of the rows, then of the answers.

    Of a left join Spark may send the right side alone to every task: the caller's columns.
    """
    both = answers.join(rows, rows[ROW] == answers[_ANSWER], how="left")
    return both.select(*[quoted(name) for name in (*rows.columns, *answers.columns)])


def _answers(
    settings: Settings, declared: Declarations, asked: DataFrame, scenarios: list[str], mode: str
) -> DataFrame:
    """One row a row, as :func:`spark_jobs.point_in_time.embed_at` gives it."""
    from spark_jobs.point_in_time import embed_at
    from spark_jobs.served import as_served
    from spark_jobs.wide_answers import ANSWER_NAMES, answer_column

    if mode != AS_SERVED:
        return embed_at(asked.sparkSession, settings, declared, asked, scenarios)
    long = as_served(asked.sparkSession, settings, declared, asked, scenarios)
    values = F.struct(*ANSWER_NAMES, OUTSIDE_TTL)
    return long.groupBy(_ANSWER_ROW).agg(
        *[
            F.first(F.when(F.col(S.SCENARIO) == name, values), ignorenulls=True).alias(answer_column(name))
            for name in scenarios
        ]
    )


def _users(entity: EntityRows, users: Sequence[tuple[EntityRef, str]], *more: Column) -> DataFrame:
    """(row_id, user, at) of every row; null where it names no user or no instant."""
    from spark_jobs.identity import with_user_key

    keys = [quoted(name).alias(one.join_key) for one, name in users]
    plain = entity.asked.select(F.col(ROW).alias(_ANSWER_ROW), quoted(entity.at).alias("at"), *keys, *more)
    kept = [_ANSWER_ROW, S.USER, "at", *(["anchor_query"] if more else [])]
    return with_user_key(plain, [one for one, _ in users]).select(*kept)


def _feature(answer: str, feature: str, mode: str) -> Column:
    """One feature of an anchor view out of its answer."""
    there = F.col(f"{answer}.{S.EMBEDDING}").isNotNull()
    if feature == "status":
        if mode == AS_SERVED:
            expired = F.when(F.col(f"{answer}.{OUTSIDE_TTL}"), F.lit("stale")).otherwise(F.lit("missing"))
            return F.when(there, F.lit("stored")).otherwise(expired)
        return F.when(there, F.lit("computed")).otherwise(F.lit("unknown"))
    if feature == "data_as_of":
        return F.when(there, F.col(f"{answer}.{S.CUTOFF}"))
    column = F.col(f"{answer}.{feature}")
    return F.when(there, column.cast("bigint") if feature == S.NUM_EVENTS else column)
