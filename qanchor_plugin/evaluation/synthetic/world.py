"""The synthetic world as Arrow tables, chunk by chunk: any size, seeded, never all in memory.

A world is a prefix of every larger world of its seed: users are drawn in chunks of fixed size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.synthetic.events import MICROS_PER_DAY, Drawn, draw_events
from qanchor_plugin.evaluation.synthetic.latents import (
    LIFE_EVENT_NAMES,
    Latents,
    draw_latents,
    propensities,
)
from qanchor_plugin.evaluation.synthetic.tasks import SYNTHETIC_TASKS
from qanchor_plugin.evaluation.synthetic.vocabulary import (
    MODALITIES,
    NAMES,
    NUM_ITEMS,
    items,
    num_forms,
    texts,
)
from qanchor_plugin.schemas import INSTANT

CHUNK_USERS = 1_000
TWIN_EVERY = 20
"""Every 20th user is a near-duplicate of the one before: a planted false negative."""

TEXT_COLUMN = {
    "payments": "purchase",
    "mini_programs": "service",
    "page_paths": "path",
    "apps": "app",
    "searches": "terms",
}
_AT = ("event_timestamp", INSTANT)
_EVENTS = {
    name: [("user_id", pa.int64()), _AT, (TEXT_COLUMN[name], pa.string()), ("thing", pa.string())]
    for name in MODALITIES
}
_EVENTS["payments"].append(("amount", pa.float64()))

TABLES: dict[str, pa.Schema] = {
    **{name: pa.schema(columns) for name, columns in _EVENTS.items()},
    "tabular": pa.schema(
        [
            ("user_id", pa.int64()),
            _AT,
            ("age_band", pa.string()),
            ("city_tier", pa.string()),
            ("device", pa.string()),
            ("tenure_months", pa.int32()),
        ]
    ),
    "labels": pa.schema(
        [("user_id", pa.int64()), _AT, ("task", pa.string()), ("positive", pa.bool_()), ("label_at", INSTANT)]
    ),
    "truth": pa.schema([("user_id", pa.int64()), ("task", pa.string()), ("propensity", pa.float64())]),
    "latents": pa.schema(
        [
            ("user_id", pa.int64()),
            ("log_activity", pa.float64()),
            ("trend", pa.float64()),
            ("thrift", pa.float64()),
            ("life_event", pa.string()),
            ("life_event_at", INSTANT),
            ("interests", pa.list_(pa.float64())),
            ("twin_of", pa.int64()),
        ]
    ),
}
"""``labels``: event_timestamp is the cutoff, label_at the instant of the positive event after it (null
when negative). ``truth`` and ``latents`` are for judging only: no model may read them."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Which world.

    Attributes:
        num_users: ids 0 to num_users - 1.
        seed: another seed is another population of the same kind.
        start: when histories begin (UTC); the cutoff is ``history_days`` later.
        label_days: labels happen in (cutoff, cutoff + label_days].
        events_scale: events a user, as a multiple of about 62 at median activity.
        num_opaque: of each interest's ten things, how many bear a name that says nothing (0 to 10). It
            changes words only: events, labels and truth are those of the world without.
    """

    num_users: int
    seed: int = 0
    start: datetime = datetime(2025, 1, 1, tzinfo=UTC)
    history_days: int = 180
    label_days: int = 60
    events_scale: float = 1.0
    num_opaque: int = 0

    def __post_init__(self) -> None:
        sizes = (self.num_users, self.history_days, self.label_days, self.events_scale)
        if min(sizes) <= 0:
            raise InputDataError(f"{self} has a size of 0 or less; users, days and scale must be above 0.")
        if not 0 <= self.num_opaque <= NUM_ITEMS:
            raise InputDataError(f"num_opaque is {self.num_opaque}; accepted are 0 to {NUM_ITEMS}.")

    @property
    def cutoff(self) -> datetime:
        """Events are before it, labels after it."""
        return self.start + timedelta(days=self.history_days)


def chunks(world: World) -> Iterator[dict[str, pa.Table]]:
    """All ``TABLES`` of the next users, at most ``CHUNK_USERS`` of them at a time, ascending by user."""
    for first in range(0, world.num_users, CHUNK_USERS):
        yield _chunk(world, first, min(CHUNK_USERS, world.num_users - first))


def write_world(world: World, folder: str | Path) -> dict[str, int]:
    """Rows written by table, to ``folder/<table>.parquet``, one row group a chunk; what stood there goes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / f".{name}.parquet.partial" for name in TABLES}
    writers = {name: pq.ParquetWriter(partial[name], schema) for name, schema in TABLES.items()}
    counts = dict.fromkeys(TABLES, 0)
    try:
        for tables in chunks(world):
            for name, table in tables.items():
                writers[name].write_table(table)
                counts[name] += table.num_rows
    finally:
        for writer in writers.values():
            writer.close()
    for name, path in partial.items():
        path.replace(folder / f"{name}.parquet")
    return counts


def _chunk(world: World, first: int, keep: int) -> dict[str, pa.Table]:
    rng = np.random.default_rng([world.seed, first // CHUNK_USERS])
    place = np.arange(CHUNK_USERS)
    twin_of = np.where(place % TWIN_EVERY == TWIN_EVERY - 1, place - 1, -1)
    latents = draw_latents(rng, CHUNK_USERS, world.history_days)
    latents = latents.take(np.where(twin_of >= 0, twin_of, place))
    chances = propensities(latents, world.history_days)
    drawn = draw_events(rng, latents, twin_of, world.history_days, world.events_scale)
    tables = {name: _event_table(world, name, drawn[name], first, keep) for name in MODALITIES}
    tables["tabular"] = _tabular(rng, world, first).slice(0, keep)
    tables["labels"] = _labels(rng, world, chances, first, keep)
    tables["truth"] = _truth(chances, first, keep)
    tables["latents"] = _latents(world, latents, twin_of, first).slice(0, keep)
    return tables


def _instants(world: World, micros: npt.NDArray[np.int64], mask: npt.NDArray | None = None) -> pa.Array:
    base = round(world.start.timestamp() * 1_000_000)
    return pa.array(base + micros, pa.int64(), mask=mask).cast(INSTANT)


def _words(values: np.ndarray, index: np.ndarray) -> pa.Array:
    return pa.array(values.tolist(), pa.string()).take(pa.array(index))


def _event_table(world: World, name: str, drawn: Drawn, first: int, keep: int) -> pa.Table:
    end = int(np.searchsorted(drawn.user, keep))
    columns = [
        pa.array(drawn.user[:end] + first),
        _instants(world, drawn.micros[:end]),
        _words(texts(name, world.num_opaque), drawn.thing[:end] * num_forms(name) + drawn.form[:end]),
        _words(items(world.num_opaque), drawn.thing[:end]),
    ]
    if name == "payments":
        columns.append(pa.array(drawn.amount[:end]))
    return pa.Table.from_arrays(columns, schema=TABLES[name])


_AGES = np.array(["18-24", "25-34", "35-44", "45-54", "55-64", "65+"], dtype=object)
_CITIES = np.array(["metropolis", "large city", "town", "village"], dtype=object)
_DEVICES = np.array(["budget phone", "mid-range phone", "flagship phone", "tablet"], dtype=object)


def _tabular(rng: np.random.Generator, world: World, first: int) -> pa.Table:
    """One row a user, known from the start; demographics drive nothing: they are a distraction."""
    columns = [
        pa.array(np.arange(CHUNK_USERS) + first),
        _instants(world, np.zeros(CHUNK_USERS, np.int64)),
        _words(_AGES, rng.integers(0, len(_AGES), CHUNK_USERS)),
        _words(_CITIES, rng.integers(0, len(_CITIES), CHUNK_USERS)),
        _words(_DEVICES, rng.integers(0, len(_DEVICES), CHUNK_USERS)),
        pa.array(rng.integers(1, 120, CHUNK_USERS).astype(np.int32)),
    ]
    return pa.Table.from_arrays(columns, schema=TABLES["tabular"])


def _labels(
    rng: np.random.Generator, world: World, chances: dict[str, np.ndarray], first: int, keep: int
) -> pa.Table:
    """User by user, one row a task; a positive's instant is uniform over the label window."""
    chance = np.column_stack([chances[task.name] for task in SYNTHETIC_TASKS])
    positive = (rng.random(chance.shape) < chance)[:keep].ravel()
    later = rng.integers(1, world.label_days * MICROS_PER_DAY, chance.shape, endpoint=True)[:keep].ravel()
    cutoff = np.full(len(positive), world.history_days * MICROS_PER_DAY)
    columns = [
        pa.array(np.repeat(np.arange(keep) + first, len(SYNTHETIC_TASKS))),
        _instants(world, cutoff),
        pa.array([task.name for task in SYNTHETIC_TASKS] * keep),
        pa.array(positive),
        _instants(world, cutoff + later, mask=~positive),
    ]
    return pa.Table.from_arrays(columns, schema=TABLES["labels"])


def _truth(chances: dict[str, np.ndarray], first: int, keep: int) -> pa.Table:
    chance = np.column_stack([chances[task.name] for task in SYNTHETIC_TASKS])[:keep].ravel()
    columns = [
        pa.array(np.repeat(np.arange(keep) + first, len(SYNTHETIC_TASKS))),
        pa.array([task.name for task in SYNTHETIC_TASKS] * keep),
        pa.array(chance),
    ]
    return pa.Table.from_arrays(columns, schema=TABLES["truth"])


def _latents(world: World, latents: Latents, twin_of: np.ndarray, first: int) -> pa.Table:
    none = latents.life_event == 0
    columns = [
        pa.array(np.arange(CHUNK_USERS) + first),
        pa.array(latents.log_activity),
        pa.array(latents.trend),
        pa.array(latents.thrift),
        _words(np.array(LIFE_EVENT_NAMES, dtype=object), latents.life_event),
        _instants(world, (latents.life_event_day * MICROS_PER_DAY).astype(np.int64), mask=none),
        pa.FixedSizeListArray.from_arrays(latents.interests.ravel(), len(NAMES)).cast(pa.list_(pa.float64())),
        pa.array(twin_of + first, mask=twin_of < 0),
    ]
    return pa.Table.from_arrays(columns, schema=TABLES["latents"])
