"""A scenario's labels as rows to tune on: a Feast entity frame (keys, an instant) with a label column."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import digest

MAX_CLASSES = 20
SUFFIXES = (".csv", ".parquet")
_SHOWN = 3

KeyOf = Callable[[Mapping[str, Any]], bytes]
"""Join key to value, to Feast's serialised entity key."""


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """Who, when, and what came of it.

    Attributes:
        users: N serialised entity keys.
        cutoffs: (N,) int64 microseconds since 1970 UTC.
        classes: (N,) int64, numbers of ``names``.
        names: the labels' values as text, ascending.
    """

    users: tuple[bytes, ...]
    cutoffs: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def digest(self) -> str:
        """Identity of the rows, whatever their order."""
        rows = zip(self.users, self.cutoffs.tolist(), self.classes.tolist(), strict=True)
        told = sorted((user.hex(), at, self.names[one]) for user, at, one in rows)
        return digest("labels", [list(one) for one in told])

    def counts(self) -> dict[str, int]:
        """Rows of each label."""
        return {name: int((self.classes == one).sum()) for one, name in enumerate(self.names)}

    def take(self, places: Sequence[int]) -> "LabelledRows":
        """Some of the rows, in the order given."""
        at = np.asarray(places, np.int64)
        users = tuple(self.users[place] for place in at)
        return LabelledRows(users=users, cutoffs=self.cutoffs[at], classes=self.classes[at], names=self.names)

    def sample(self, size: int, *, seed: int) -> "LabelledRows":
        """``size`` rows drawn evenly, in their order."""
        drawn = np.random.default_rng(seed).choice(len(self), size, replace=False)
        return self.take(np.sort(drawn).tolist())


def read_labels(
    path: str | Path,
    *,
    join_keys: Sequence[str],
    key_of: KeyOf,
    label_column: str,
    timestamp_column: str = "event_timestamp",
) -> LabelledRows:
    """The rows of a ``.csv`` or ``.parquet`` file; instants without a zone are UTC.

    Args:
        path: the entity frame with its labels.
        join_keys: the profile's.
        key_of: serialises a key; raises InputDataError when it is not of the declared type.

    Raises:
        InputDataError: no such file, a column that is missing or has nulls, one class only or more than 20,
            or a user twice at one instant.
    """
    frame = _read(Path(path), join_keys)
    needed = [*join_keys, timestamp_column, label_column]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputDataError(
            f"{path} has no column {missing}; it has {list(frame.columns)}. It must have the join keys "
            f"{list(join_keys)}, the instant ({timestamp_column!r}, or --timestamp-column) and the label "
            f"({label_column!r})."
        )
    if frame.empty:
        raise InputDataError(f"{path} has no rows. Give one a user and instant, with its label.")
    empty = {name: int(frame[name].isna().sum()) for name in needed if frame[name].isna().any()}
    if empty:
        raise InputDataError(
            f"{path} has empty values, rows by column: {empty}. Fill or leave out these rows."
        )
    cutoffs = _micros(frame[timestamp_column], timestamp_column)
    classes, names = _classes(frame[label_column], label_column)
    keys = frame[list(join_keys)].to_dict("records")
    users = tuple(key_of({str(k): v for k, v in one.items()}) for one in keys)
    _refuse_twice(users, cutoffs, keys, frame[timestamp_column])
    return LabelledRows(users=users, cutoffs=cutoffs, classes=classes, names=names)


def _read(path: Path, join_keys: Sequence[str]) -> pd.DataFrame:
    if path.suffix not in SUFFIXES:
        raise InputDataError(f"--labels {str(path)!r}: the name must end in one of {list(SUFFIXES)}.")
    try:
        if path.suffix == ".csv":  # keys as written: 007 is not 7
            return pd.read_csv(path, dtype=dict.fromkeys(join_keys, str))
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputDataError(f"--labels {str(path)!r} cannot be read: {error}.") from error


def _micros(column: pd.Series, name: str) -> npt.NDArray[np.int64]:
    try:
        instants = pd.to_datetime(column, utc=True, format="ISO8601" if column.dtype == object else None)
    except (ValueError, TypeError) as error:
        raise InputDataError(
            f"column {name!r} holds values that are no instants ({error}); write them as "
            "2017-06-01T00:00:00Z."
        ) from error
    if pd.api.types.is_numeric_dtype(column):
        raise InputDataError(
            f"column {name!r} holds numbers such as {column.iloc[0]}; write instants as 2017-06-01T00:00:00Z."
        )
    return instants.dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)


def _classes(column: pd.Series, name: str) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    values, numbers = np.unique(column.to_numpy(), return_inverse=True)
    if not 2 <= len(values) <= MAX_CLASSES:
        shown = [str(one) for one in values[:_SHOWN]]
        raise InputDataError(
            f"label column {name!r} holds {len(values)} different values ({', '.join(shown)}"
            f"{', ...' if len(values) > _SHOWN else ''}); a label has 2 to {MAX_CLASSES} classes. "
            "Give users of every class; cut a continuous label into a few."
        )
    return numbers.astype(np.int64), tuple(str(one) for one in values)


def _refuse_twice(
    users: Sequence[bytes], cutoffs: npt.NDArray[np.int64], keys: list[dict[Any, Any]], instants: pd.Series
) -> None:
    seen: set[tuple[bytes, int]] = set()
    twice = []
    for place, pair in enumerate(zip(users, cutoffs.tolist(), strict=True)):
        if pair in seen:
            twice.append(place)
        seen.add(pair)
    if twice:
        shown = "; ".join(f"{keys[one]} at {instants.iloc[one]}" for one in twice[:_SHOWN])
        raise InputDataError(
            f"{len(twice)} rows name a user a second time at the same instant ({shown}). "
            "Give one label a user and instant."
        )
