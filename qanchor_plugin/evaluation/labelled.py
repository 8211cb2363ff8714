"""A person's own labels: read and checked, so that folds and point in time mean what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.folds import Users

SUFFIXES = (".csv", ".csv.gz", ".parquet")
MIN_OF_A_CLASS = 10
"""Fewer say nothing: the standard error of an AUC of ten positives is about a tenth."""

_INTEGERS = ("INT64", "INT32")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Users with a label at an instant, or at several.

    Attributes:
        rows: join keys and the instant (UTC), in this order.
        labels: (n,) bool.
    """

    rows: pd.DataFrame
    labels: npt.NDArray[np.bool_]

    @property
    def users(self) -> Users:
        """(n,) each row's user as a number from 0 on; None where every user has one row."""
        numbers = _user_numbers(self.rows)
        return None if len(numbers) == numbers.max(initial=-1) + 1 else numbers


def read_labels(path: Path) -> pd.DataFrame:
    """The file as a frame.

    Raises:
        InputDataError: absent, of another kind, empty or unreadable.
    """
    if not path.name.endswith(SUFFIXES):
        raise InputDataError(f"--labels {str(path)!r}: accepted are files ending in {list(SUFFIXES)}.")
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputDataError(
            f"--labels {str(path)!r} cannot be read: {error}. Give a file with a row a user and a heading."
        ) from error
    if frame.empty:
        raise InputDataError(f"--labels {str(path)!r} has no row; label some users.")
    return frame


def checked_labels(
    frame: pd.DataFrame, *, keys: Sequence[tuple[str, str]], label: str, at: str, num_folds: int
) -> Labelled:
    """The rows brought to one form.

    Args:
        frame: as read.
        keys: join keys with their value types (INT64, STRING...).
        label: column of two values, 0 and 1 or false and true.
        at: column of the instants.
        num_folds: of the cross-validation.

    Raises:
        InputDataError: a column is absent, a value is null or no label, a user stands twice at one instant,
            or a class has too few users.
    """
    absent = [name for name in (*(key for key, _ in keys), label, at) if name not in frame.columns]
    if absent:
        raise InputDataError(
            f"the labels have no column {absent}; their columns are {list(frame.columns)}. Needed are the "
            "join keys, the instant (--at-column) and the label (--label-column)."
        )
    rows = pd.DataFrame({key: _typed(frame[key], key, kind) for key, kind in keys})
    labels = _binary(frame[label], label)
    rows["event_timestamp"] = _instants(frame[at], at)
    _once_each(rows, labels)
    order = rows.sort_values(rows.columns.tolist(), kind="stable").index
    found = Labelled(rows=rows.loc[order].reset_index(drop=True), labels=labels[order.to_numpy()])
    check_classes(found, num_folds)
    return found


def check_behaviour(rows: pd.DataFrame, num_events: "pd.Series[float]", name: str) -> None:
    """Nothing when every user had behaviour at the label's instant.

    Raises:
        InputDataError: some had none, or are unknown; counts them and shows the first.
    """
    empty = (num_events.fillna(0) == 0).to_numpy()
    if empty.any():
        raise InputDataError(
            f"{int(empty.sum())} of {len(rows)} labels stand at instants before any behaviour of their user "
            f"(view {name!r}), or name users that the lake does not know; the first is "
            f"{_shown(rows.loc[empty.nonzero()[0][0]])}. Such rows say nothing of the embedding: move the "
            "instants after the behaviour, leave the rows out (--skip-empty), or run feast materialize."
        )


def _typed(column: "pd.Series", key: str, kind: str) -> "pd.Series":
    if column.isna().any():
        raise InputDataError(
            f"column {key!r} has {int(column.isna().sum())} nulls, the first in row "
            f"{int(column.isna().argmax())}; every label needs its user."
        )
    if kind not in _INTEGERS:
        return column.astype(str).reset_index(drop=True)
    try:
        numbers = pd.to_numeric(column)
        if (numbers % 1 != 0).any():
            raise ValueError("there are fractions")
    except (ValueError, TypeError) as error:
        raise InputDataError(
            f"column {key!r} is not of type {kind} ({error}); the registry declares that key with whole "
            "numbers."
        ) from error
    return numbers.astype("int64").reset_index(drop=True)


def _binary(column: "pd.Series", label: str) -> npt.NDArray[np.bool_]:
    values = column.dropna().unique().tolist()
    if column.isna().any() or not set(values) <= {0, 1}:
        shown = [str(one) for one in values[:5]]
        raise InputDataError(
            f"column {label!r} holds {shown} and {int(column.isna().sum())} nulls; a label is 0 or 1 (or "
            "false and true). Make one column a question, and leave out users without an answer."
        )
    return column.to_numpy().astype(bool)


def _instants(column: "pd.Series", at: str) -> "pd.Series":
    is_text = column.dtype == object or pd.api.types.is_string_dtype(column.dtype)
    if not is_text and not pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise InputDataError(
            f"column {at!r} is of type {column.dtype}; give instants like 2017-05-01T12:00:00Z."
        )
    try:
        instants = pd.to_datetime(column, utc=True, format="ISO8601" if is_text else None)
    except (ValueError, TypeError) as error:
        raise InputDataError(
            f"column {at!r} holds what is no instant ({error}); write 2017-05-01T12:00:00Z."
        ) from error
    if instants.isna().any():
        raise InputDataError(
            f"column {at!r} has {int(instants.isna().sum())} nulls; a label without its instant leaks."
        )
    return instants.reset_index(drop=True)


def _once_each(rows: pd.DataFrame, labels: npt.NDArray[np.bool_]) -> None:
    again = rows.duplicated(keep=False)
    if not again.any():
        return
    first = rows.loc[again.idxmax()]
    same = (rows == first).all(axis=1).to_numpy()
    clash = ", with both labels" if len(set(labels[same])) > 1 else ""
    raise InputDataError(
        f"{int(again.sum())} rows name a user that stands more than once at one instant; the first, "
        f"{_shown(first)}, stands {int(same.sum())} times{clash}. Give one label a user and instant."
    )


def check_classes(given: Labelled, num_folds: int) -> None:
    """Nothing when both classes have users enough.

    Raises:
        InputDataError: one class only, or a class of too few users.
    """
    labels, least = given.labels, max(MIN_OF_A_CLASS, num_folds)
    positive = int(labels.sum())
    if min(positive, len(labels) - positive) == 0:
        which = "1" if positive else "0"
        raise InputDataError(
            f"all {len(labels)} labels are {which}: there is one class only and nothing to tell apart. Add "
            "users of the other class, or look at the label's column."
        )
    numbers = _user_numbers(given.rows)
    users = {one: len(np.unique(numbers[labels == one])) for one in (True, False)}
    if min(users.values()) < least:
        raise InputDataError(
            f"{positive} of {len(labels)} labels are positive, of {users[True]} users; the others are of "
            f"{users[False]}. Each class needs {least} users at least. Label more users, or widen the window "
            "that labels look at."
        )


def _user_numbers(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    keys = [name for name in rows.columns if name != "event_timestamp"]
    return rows.groupby(keys).ngroup().to_numpy(np.int64)


def _shown(row: "pd.Series") -> dict[str, str]:
    return {str(name): str(value) for name, value in row.items()}
