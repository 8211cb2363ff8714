"""Usable rows as users, text ids and group ids: the functions of ``qanchor_plugin.sequence`` over Arrow."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import EntityRef, Modality
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence.render import group_ids, render_group, render_texts
from spark_jobs.identity import encode_users
from spark_jobs.transforms.validate import FIELDS, KEYS

RENDERED = (
    "user binary, user_key string, event_at timestamp, known_at timestamp, text_id binary, groups binary,"
    " amounts array<double>"
)
TEXTS = "text_id binary, text string"

_Batches = Iterator[pa.RecordBatch]


def rendered(shaped: DataFrame, modality: Modality, entities: Sequence[EntityRef]) -> DataFrame:
    """One row an event, of schema ``RENDERED``: who, when, which text, which groups, how much.

    Args:
        shaped: usable rows of :func:`~spark_jobs.transforms.validate.normalised`.
    """
    columns = shaped.select(KEYS, FIELDS, S.EVENT_AT, S.KNOWN_AT, S.AMOUNTS)
    return columns.mapInArrow(_event_renderer(modality, tuple(entities)), RENDERED)


def texts(shaped: DataFrame, modality: Modality) -> DataFrame:
    """Every distinct text of the rows' events and group names, with its id (schema ``TEXTS``)."""
    named = [F.col(f"{FIELDS}.`{name}`").alias(name) for name in modality.text_columns]
    events = shaped.select(*named).distinct().mapInArrow(_text_renderer(modality.text), TEXTS)
    for key in modality.group_by:
        values = shaped.select(F.col(f"{FIELDS}.`{key}`").alias(key)).distinct()
        events = events.unionByName(values.mapInArrow(_name_renderer(key), TEXTS))
    return events.groupBy(S.TEXT_ID).agg(F.first(S.TEXT).alias(S.TEXT))


def not_in(candidates: DataFrame, known: DataFrame, key: str) -> DataFrame:
    """The candidates whose ``key`` stands in no row of ``known``."""
    return candidates.join(known.select(key), on=key, how="left_anti")


def _event_renderer(modality: Modality, entities: tuple[EntityRef, ...]) -> Callable[[_Batches], _Batches]:
    def render(batches: _Batches) -> _Batches:
        id_of = cache(text_id)
        group_id_of = cache(lambda value: group_ids([render_group(value)]))
        for batch in batches:
            fields = _columns(batch, FIELDS)
            keys = _columns(batch, KEYS)
            users, names = encode_users([keys[entity.join_key] for entity in entities], entities)
            ids = [id_of(text) for text in render_texts(modality.text, _table(batch))]
            by_key = [[group_id_of(value) for value in fields[key]] for key in modality.group_by]
            groups = [b"".join(row) for row in zip(*by_key, strict=True)] if by_key else [b""] * len(ids)
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(users, pa.binary()),
                    pa.array(names, pa.string()),
                    batch.column(S.EVENT_AT),
                    batch.column(S.KNOWN_AT),
                    pa.array(ids, pa.binary()),
                    pa.array(groups, pa.binary()),
                    batch.column(S.AMOUNTS),
                ],
                [S.USER, S.USER_KEY, S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID, S.GROUPS, S.AMOUNTS],
            )

    return render


def _text_renderer(template: str) -> Callable[[_Batches], _Batches]:
    def render(batches: _Batches) -> _Batches:
        for batch in batches:
            yield _with_ids(list(dict.fromkeys(render_texts(template, pa.Table.from_batches([batch])))))

    return render


def _name_renderer(key: str) -> Callable[[_Batches], _Batches]:
    def render(batches: _Batches) -> _Batches:
        for batch in batches:
            names = (render_group(value) for value in batch.column(key).to_pylist())
            yield _with_ids(list(dict.fromkeys(name for name in names if name is not None)))

    return render


def _with_ids(found: list[str]) -> pa.RecordBatch:
    ids = pa.array([text_id(text) for text in found], pa.binary())
    return pa.RecordBatch.from_arrays([ids, pa.array(found, pa.string())], [S.TEXT_ID, S.TEXT])


def _table(batch: pa.RecordBatch) -> pa.Table:
    struct = batch.column(FIELDS)
    names = [field.name for field in struct.type]
    return pa.Table.from_arrays([struct.field(name) for name in names], names)


def _columns(batch: pa.RecordBatch, name: str) -> dict[str, list]:
    struct = batch.column(name)
    return {field.name: struct.field(field.name).to_pylist() for field in struct.type}
