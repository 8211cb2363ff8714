"""A pushed frame as rows of ``pushed_events``: checked whole, rendered by the batch's own functions."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.errors import FeastError
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import EntityRef, Modality
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.feast_ext import push_columns as C
from qanchor_plugin.feast_ext.online_rows import ENTITY_KEY_VERSION, instant_of, micros_of
from qanchor_plugin.feast_ext.push_view import PushedSource, raw_name
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence.render import group_ids, render_group, render_texts

FUTURE_SLACK = timedelta(days=1)
"""As in the batch: an event further than this past now cannot have happened."""

MAX_NAMED = 10
"""Bad rows named in one message."""

_KEY_FIELDS = {"INT64": "int64_val", "INT32": "int32_val", "STRING": "string_val", "BYTES": "bytes_val"}


class PushError(InputDataError, FeastError):
    """Pushed rows cannot be used; none of them was kept. Over HTTP its status is 422."""

    def http_status_code(self) -> int:
        """Unprocessable content: the request was understood, its rows are wrong."""
        return 422


def pushed_rows(source: PushedSource, frame: pd.DataFrame, *, now: datetime) -> list[dict[str, Any]]:
    """The frame's rows for every modality of the source, as ``PushedEvents.append`` takes them.

    Args:
        frame: raw source rows, under the source's own column names; others are passed over.
        now: the settings' clock: ``known_at`` where the source has no created column or the row no value.

    Raises:
        PushError: naming every bad row (at most ``MAX_NAMED`` in words); nothing is kept of the frame.
    """
    columns, faults = _typed(source, frame)
    rows = []
    for modality, entities in source.targets.values():
        rows += list(_rendered(modality, entities, columns, now, faults))
    _raise_faults(source, faults, len(frame))
    _warn_of_unseen(rows, now)
    return rows


def _typed(source: PushedSource, frame: pd.DataFrame) -> tuple[dict[str, pa.Array], dict[int, list[str]]]:
    """Columns under their mapped names, in the source's types; and what is wrong, by row."""
    spec, types = source.spec, C.source_types(source.spec)
    wanted, optional = _columns_of(source)
    missing = sorted(name for name in wanted - optional if name not in frame.columns)
    unknown = sorted(name for name in wanted - optional if name not in types.names)
    if missing or unknown:
        lacking = f"the frame has no columns {missing}" if missing else f"its source has no columns {unknown}"
        raise PushError(
            f"push {source.push!r}: {lacking}; it has {sorted(map(str, frame.columns))} and source "
            f"{spec.name!r} has {sorted(types.names)}. Nothing was kept. Push rows as they stand there."
        )
    columns: dict[str, pa.Array] = {}
    faults: dict[int, list[str]] = {}
    for name in sorted(wanted & set(frame.columns) & set(types.names)):
        array, wrong = C.converted(C.plain_values(frame[name]), types.field(name).type)
        columns[spec.field_mapping.get(name, name)] = array
        for row, fault in wrong.items():
            faults.setdefault(row, []).append(f"{name}: {fault}")
    return columns, faults


def _columns_of(source: PushedSource) -> tuple[set[str], set[str]]:
    """Names in the source of every column that is read, and those of them that a row may lack."""
    wanted, optional = set(), set()
    for modality, entities in source.targets.values():
        keys = [entity.join_key for entity in entities]
        wanted |= {raw_name(modality.source, name) for name in (*keys, *modality.columns)}
        wanted.add(modality.source.event_at)
        if modality.source.known_at:
            wanted.add(modality.source.known_at)
            optional.add(modality.source.known_at)
    return wanted, optional


def _rendered(
    modality: Modality,
    entities: Sequence[EntityRef],
    columns: Mapping[str, pa.Array],
    now: datetime,
    faults: dict[int, list[str]],
) -> Iterator[dict[str, Any]]:
    source = modality.source
    times = columns[source.field_mapping.get(source.event_at, source.event_at)].to_pylist()
    known = columns.get(source.field_mapping.get(source.known_at, source.known_at))
    known_at = [None] * len(times) if known is None else known.to_pylist()
    texts = render_texts(modality.text, pa.table({name: columns[name] for name in modality.text_columns}))
    groups = [[render_group(value) for value in columns[key].to_pylist()] for key in modality.group_by]
    amounts = [columns[name].to_pylist() for name in modality.amounts]
    keys = [columns[entity.join_key].to_pylist() for entity in entities]
    for row, text in enumerate(texts):
        user, user_key = _user(entities, [values[row] for values in keys], row, faults)
        event_at = _event_at(times[row], source.event_at, now, row, faults)
        if row in faults:
            continue
        names = [values[row] for values in groups]
        yield {
            S.MODALITY: modality.name,
            S.MODALITY_DIGEST: modality.sequence_digest,
            S.USER: user,
            S.USER_KEY: user_key,
            S.EVENT_AT: event_at,
            S.KNOWN_AT: micros_of(now) if known_at[row] is None else C.instant(known_at[row]),
            S.TEXT_ID: text_id(text),
            S.GROUPS: group_ids(names),
            S.AMOUNTS: [math.nan if values[row] is None else float(values[row]) for values in amounts],
            S.TEXT: text,
            S.GROUP_TEXTS: names,
        }


def _user(
    entities: Sequence[EntityRef], values: Sequence[Any], row: int, faults: dict[int, list[str]]
) -> tuple[bytes, str]:
    """The entity key and its readable form; a fault where a key is null or of another type."""
    typed: list[Any] = []
    for entity, value in zip(entities, values, strict=True):
        try:
            typed.append(_key_value(entity, value))
        except (ValueError, TypeError, OverflowError) as error:
            _add(faults, row, f"{entity.join_key}: {error}")
    if len(typed) < len(entities):
        return b"", ""
    proto = EntityKey(
        join_keys=[entity.join_key for entity in entities],
        entity_values=[
            Value(**{_KEY_FIELDS[entity.value_type]: value})
            for entity, value in zip(entities, typed, strict=True)
        ],
    )
    plain = [value.hex() if isinstance(value, bytes) else value for value in typed]
    named = {entity.join_key: value for entity, value in zip(entities, plain, strict=True)}
    user = serialize_entity_key(proto, entity_key_serialization_version=ENTITY_KEY_VERSION)
    return user, json.dumps(named, ensure_ascii=False)


def _key_value(entity: EntityRef, value: Any) -> Any:
    """The join key in its entity's type, as Spark casts it for the batch."""
    if value is None:
        raise ValueError("the key is null")
    if entity.value_type in ("INT64", "INT32"):
        number = C.whole_number(value)
        bits = 63 if entity.value_type == "INT64" else 31
        if not -(1 << bits) <= number < 1 << bits:
            raise ValueError(f"{number} is out of the range of {entity.value_type}")
        return number
    if entity.value_type == "STRING":
        return value.decode() if isinstance(value, bytes) else str(value)
    return value.encode() if isinstance(value, str) else bytes(value)


def _event_at(value: Any, name: str, now: datetime, row: int, faults: dict[int, list[str]]) -> int:
    try:
        event_at = C.instant(value) if value is not None else None
    except ValueError as error:
        _add(faults, row, f"{name}: {error}")
        return 0
    if event_at is None:
        _add(faults, row, f"{name}: the instant is null")
        return 0
    latest = max(now, datetime.now(UTC)) + FUTURE_SLACK
    if event_at > micros_of(latest):
        _add(faults, row, f"{name}: {instant_of(event_at).isoformat()} is in the future")
    return event_at


def _add(faults: dict[int, list[str]], row: int, fault: str) -> None:
    said = faults.setdefault(row, [])
    column = fault.split(":")[0]
    if not any(one.startswith(f"{column}:") for one in said):
        said.append(fault)


def _raise_faults(source: PushedSource, faults: Mapping[int, list[str]], num_rows: int) -> None:
    if not faults:
        return
    named = [f"  - row {row}: {'; '.join(faults[row])}" for row in sorted(faults)[:MAX_NAMED]]
    more = [f"  - and {len(faults) - MAX_NAMED} rows more"] if len(faults) > MAX_NAMED else []
    heading = (
        f"push {source.push!r}: {len(faults)} of {num_rows} rows cannot be used (rows count from 0), so "
        "nothing was kept. Mend or leave out these, then push again:"
    )
    raise PushError("\n".join([heading, *named, *more]))


def _warn_of_unseen(rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Said aloud: a reader whose clock stands before an event does not see it."""
    late = [row for row in rows if max(row[S.EVENT_AT], row[S.KNOWN_AT]) > micros_of(now)]
    if late:
        newest = max(max(row[S.EVENT_AT], row[S.KNOWN_AT]) for row in late)
        warnings.warn(
            f"{len(late)} pushed events lie after now ({now.isoformat()}; the newest is of "
            f"{instant_of(newest).isoformat()}): they are kept, and no read sees them before the clock gets "
            "there. Where 'qanchor: clock:' is set in feature_store.yaml, it stands still.",
            stacklevel=2,
        )
