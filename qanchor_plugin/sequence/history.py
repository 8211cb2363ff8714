"""One user's whole stored history, as arrays.

Shape letters: N events, G declared group keys, A declared amounts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from qanchor_plugin.identity import TEXT_ID_BYTES

Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Events:
    """Events (or tabular rows) of one user and modality, in canonical order (:meth:`sorted`).

    Attributes:
        event_at: (N,) int64, microseconds since 1970 UTC.
        known_at: (N,) int64, likewise.
        text_id: (N, 16) uint8.
        groups: (N, G, 16) uint8; zeros where a group key was null.
        amounts: (N, A) float64; NaN where null.
    """

    event_at: Int64
    known_at: Int64
    text_id: UInt8
    groups: UInt8
    amounts: Float64

    def __len__(self) -> int:
        return len(self.event_at)

    @classmethod
    def empty(cls, num_groups: int = 0, num_amounts: int = 0) -> "Events":
        """No events."""
        return cls(
            event_at=np.zeros(0, np.int64),
            known_at=np.zeros(0, np.int64),
            text_id=np.zeros((0, TEXT_ID_BYTES), np.uint8),
            groups=np.zeros((0, num_groups, TEXT_ID_BYTES), np.uint8),
            amounts=np.zeros((0, num_amounts), np.float64),
        )

    def take(self, index: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> "Events":
        """The events at ``index`` (positions or mask), in its order."""
        return Events(
            event_at=self.event_at[index],
            known_at=self.known_at[index],
            text_id=self.text_id[index],
            groups=self.groups[index],
            amounts=self.amounts[index],
        )

    @cached_property
    def coded_groups(self) -> tuple[tuple[Int64, UInt8], ...]:
        """Of each group key its values: a code for each event (N,), -1 where it is null, and the ids (K, 16)
        that codes stand for."""
        coded = []
        for column in range(self.groups.shape[1]):
            ids = np.ascontiguousarray(self.groups[:, column])
            named = ids.any(axis=1)
            known, member = np.unique(ids[named].view(f"V{TEXT_ID_BYTES}").ravel(), return_inverse=True)
            codes = np.full(len(ids), -1, np.int64)
            codes[named] = member
            coded.append((codes, known.view(np.uint8).reshape(-1, TEXT_ID_BYTES)))
        return tuple(coded)

    def sorted(self) -> "Events":
        """The same events in canonical order: a digest of them depends on nothing else."""
        high, low = _as_words(self.text_id)
        tail = _tie_breakers(self)
        order = np.lexsort((self.known_at, *tail, low, high, self.event_at))
        return self.take(order)


@dataclass(frozen=True, kw_only=True)
class UserHistory:
    """Everything stored of one user.

    Attributes:
        user: Feast's serialised entity key.
        user_key: the same as readable JSON.
        events: by modality name; a modality without rows may be absent.
    """

    user: bytes
    user_key: str
    events: Mapping[str, Events]


def _as_words(ids: UInt8) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    words = np.ascontiguousarray(ids).view(">u8").astype(np.uint64).reshape(len(ids), 2)
    return words[:, 0], words[:, 1]


def _tie_breakers(events: Events) -> list[npt.NDArray[np.generic]]:
    """Least significant keys: rows that differ at all sort the same however they arrive."""
    keys: list[npt.NDArray[np.generic]] = [
        events.amounts[:, column] for column in range(events.amounts.shape[1])
    ]
    for column in range(events.groups.shape[1]):
        keys.extend(_as_words(events.groups[:, column]))
    return keys
