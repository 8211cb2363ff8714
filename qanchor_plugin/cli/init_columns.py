"""What each column of a person's table is good for: guesses, each with its reason."""

import re
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from qanchor_plugin.cli.init_tables import SourceTable
from qanchor_plugin.declare.modality import MAX_AMOUNTS
from qanchor_plugin.errors import InputDataError

MAX_TEXT_COLUMNS = 5
MAX_GROUP_COLUMNS = 2
MAX_GROUP_NAMES = 500
MAX_TEXT_NAMES = 5_000
LONG_TEXT_CHARS = 80

_CREATED = re.compile(
    r"(created|ingested|inserted|loaded|recorded|known|arrived)(_(at|on|ts|time|timestamp|date))?"
)
_EVENT_TIME = re.compile(
    r"(event_?)?(timestamp|time|ts|datetime|at)|.*_(at|ts|time|timestamp|datetime)|.*date.*"
)
_GROUP_WORDS = (
    "categor",
    "department",
    "type",
    "kind",
    "brand",
    "merchant",
    "channel",
    "class",
    "section",
    "topic",
)
_AMOUNT_WORDS = (
    "amount",
    "value",
    "price",
    "spend",
    "sales",
    "revenue",
    "cost",
    "total",
    "quantity",
    "qty",
    "duration",
    "seconds",
    "minutes",
)
_ID_NAME = re.compile(r"(.*_)?(id|uuid|guid|key|upc|sku|hash)s?")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """How one table would read as a modality.

    Attributes:
        table: the table.
        kind, static, event_at, known_at, text, group_by, amounts: as in ``Modality`` and ``SourceSpec``.
        why: one sentence for each guess.
        doubts: what a person should look at before using it.
    """

    table: SourceTable
    kind: str
    static: bool
    event_at: str
    known_at: str
    text: str
    group_by: tuple[str, ...]
    amounts: tuple[str, ...]
    why: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def guess_modality(table: SourceTable, join_keys: tuple[str, ...]) -> Guess:
    """The table as a modality of users named by ``join_keys``.

    Raises:
        InputDataError: no column is left that says what happened.
    """
    why: list[str] = []
    doubts: list[str] = []
    event_at, known_at = _times(table, why, doubts)
    kind = _kind(table, join_keys, event_at, why, doubts)
    taken = {*join_keys, event_at, known_at}
    texts = text_columns(table, taken, doubts)
    if not texts:
        raise InputDataError(
            f"source {table.given!r} has no column that says what happened, besides its keys and times: "
            f"{table.columns}. Leave it out, or add a text column."
        )
    labelled = kind == "tabular" or not all(_is_text(table, column) for column in texts)
    text = (
        ", ".join(f"{c.replace('_', ' ')} {{{c}}}" for c in texts)
        if labelled
        else " ".join(f"{{{c}}}" for c in texts)
    )
    why.append(f"text from {texts}: " + ", ".join(f"{c} has {table.distinct(c)} values" for c in texts))
    groups = _group_columns(table, texts, why) if kind == "events" else ()
    amounts = _amount_columns(table, taken, why) if kind == "events" else ()
    return Guess(
        table=table,
        kind=kind,
        static=not event_at,
        event_at=event_at,
        known_at=known_at,
        text=text,
        group_by=groups,
        amounts=amounts,
        why=why,
        doubts=doubts,
    )


def text_columns(table: SourceTable, taken: set[str], doubts: list[str]) -> list[str]:
    """The columns that say what happened: words with few values first, else free text, else numbers."""
    odd = [c for c in table.columns if not c.isidentifier()]
    if odd:
        doubts.append(f"columns {odd} cannot stand in a template: rename them by the source's field_mapping")
    usable = [c for c in table.columns if c not in taken and c.isidentifier() and table.distinct(c) > 0]
    words = [c for c in usable if _is_text(table, c) and not _ID_NAME.fullmatch(c.lower())]
    few = [
        c for c in words if table.distinct(c) <= MAX_TEXT_NAMES and _mean_chars(table, c) <= LONG_TEXT_CHARS
    ]
    varied = [c for c in few if table.distinct(c) > 1] or few
    if varied:
        return varied[:MAX_TEXT_COLUMNS]
    if words:
        doubts.append(
            f"{words[0]} has many or long values: each distinct text is encoded once, which takes time"
        )
        return words[:1]
    numbers = [c for c in usable if _is_number(table, c) or pa.types.is_boolean(table.type_of(c))]
    plain = [c for c in numbers if not _ID_NAME.fullmatch(c.lower())]
    return (plain or numbers or [c for c in usable if _is_text(table, c)])[:MAX_TEXT_COLUMNS]


def _times(table: SourceTable, why: list[str], doubts: list[str]) -> tuple[str, str]:
    times = [c for c in table.columns if pa.types.is_temporal(table.type_of(c)) and _has_day(table, c)]
    if not times:
        why.append("no timestamp column: declared static")
        doubts.append("a static source is always visible: training rows see it before it was known")
        return "", ""
    created = [c for c in times if _CREATED.fullmatch(c.lower())]
    events = [c for c in times if c not in created] or created
    named = [c for c in events if _EVENT_TIME.fullmatch(c.lower())] or events
    first = next((c for c in named if c.lower() in ("event_timestamp", "event_at", "event_time")), named[0])
    why.append(f"timestamp {first}" + (f", of {times}" if len(times) > 1 else ": the only time"))
    if len(named) > 1:
        doubts.append(f"several columns could be the event's time: {named}; {first} was taken")
    known = next((c for c in created if c != first), "")
    if known:
        why.append(f"created_timestamp_column {known}: when the row became known")
    else:
        doubts.append(
            "no created column: an event counts as known when it happened, late arrivals cannot be told"
        )
    return first, known


def _kind(
    table: SourceTable, join_keys: tuple[str, ...], event_at: str, why: list[str], doubts: list[str]
) -> str:
    users = table.sample.select(list(join_keys)).group_by(list(join_keys)).aggregate([]).num_rows
    rows_a_user = table.sample.num_rows / max(users, 1)
    if not event_at:
        if rows_a_user > 1.05:
            doubts.append(f"{rows_a_user:.1f} rows a user and no time: only one of them can be seen")
        return "tabular"
    if rows_a_user <= 1.05 and table.whole and users > 1:
        why.append(f"one row a user ({users} users): tabular, the newest row describes the user")
        return "tabular"
    why.append(f"{rows_a_user:.1f} rows a user in the sample: events")
    return "events"


def _group_columns(table: SourceTable, texts: list[str], why: list[str]) -> tuple[str, ...]:
    fit = [c for c in texts if _is_text(table, c) and 2 <= table.distinct(c) <= MAX_GROUP_NAMES]
    fit.sort(key=lambda c: (not any(word in c.lower() for word in _GROUP_WORDS), -table.distinct(c)))
    chosen = tuple(fit[:MAX_GROUP_COLUMNS])
    if chosen:
        why.append(
            f"group_by {list(chosen)}: at most {MAX_GROUP_NAMES} names each, counted over the whole window"
        )
    return chosen


def _amount_columns(table: SourceTable, taken: set[str], why: list[str]) -> tuple[str, ...]:
    numbers = [c for c in table.columns if c not in taken and c.isidentifier() and _is_number(table, c)]
    numbers = [c for c in numbers if not _ID_NAME.fullmatch(c.lower())]
    named = [c for c in numbers if any(word in c.lower() for word in _AMOUNT_WORDS)]
    named.sort(key=lambda c: min(i for i, word in enumerate(_AMOUNT_WORDS) if word in c.lower()))
    others = [c for c in numbers if c not in named and not pa.types.is_integer(table.type_of(c))]
    chosen = tuple([*named, *others][:MAX_AMOUNTS])
    if chosen:
        why.append(f"amounts {list(chosen)}: numbers summed by group")
    return chosen


def _is_text(table: SourceTable, column: str) -> bool:
    kind = table.type_of(column)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(table: SourceTable, column: str) -> bool:
    kind = table.type_of(column)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _has_day(table: SourceTable, column: str) -> bool:
    kind = table.type_of(column)
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def _mean_chars(table: SourceTable, column: str) -> float:
    return pc.mean(pc.utf8_length(table.sample[column].cast(pa.string()))).as_py() or 0.0
