"""Users of no data, to time an engine with: random soft tokens, and slices of random events."""

from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence import Events, UserHistory, UserSlice, slice_at

_DAY = 86_400_000_000
_NOW = 17_500 * _DAY
_EVENTS, _TEXTS = 200, 64


def random_prefix(engine: Any, length: int) -> Any:
    """A prefix of that many soft tokens of the engine's width and type; the same each time."""
    from qanchor_plugin.engine import Prefix

    rows = 0.5 * np.random.default_rng(length).normal(size=(length, engine.token_width)).astype(np.float32)
    return Prefix(
        user=b"calibration",
        visible_digest="0" * 32,
        as_of=0,
        num_events=length,
        tokens=_stored(rows, engine.token_dtype),
        positions=np.arange(length, dtype=np.int32),
    )


def random_slices(count: int) -> list[UserSlice]:
    """Users of 200 events each, with a group and an amount."""
    source = SourceSpec(name="calibration", path="none", event_at="at")
    modality = Modality("events", source, "{a}", group_by=("g",), amounts=("v",), max_events=_EVENTS)
    entity = EntityRef(name="user", join_key="user_id", value_type="INT64")
    profile = Profile("calibration", entity, [modality], window=None)
    return [slice_at(_history(number), profile, _NOW) for number in range(count)]


class CountedVectors:
    """A unit vector for every text, without a file."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def lookup(self, ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """(N, dim) float16."""
        rows = np.tile(np.arange(1, self.dim + 1, dtype=np.float32), (len(ids), 1))
        rows += np.asarray(ids, np.float32)[:, :1]
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def _history(number: int) -> UserHistory:
    random = np.random.default_rng(number)
    texts = np.stack([np.frombuffer(text_id(f"text {n}"), np.uint8) for n in range(_TEXTS)])
    at = np.sort(random.integers(_NOW - 90 * _DAY, _NOW, _EVENTS))
    events = Events(
        event_at=at,
        known_at=at,
        text_id=texts[random.integers(0, _TEXTS, _EVENTS)],
        groups=texts[random.integers(0, 8, _EVENTS)][:, None],
        amounts=random.random((_EVENTS, 1)),
    )
    return UserHistory(user=b"user %d" % number, user_key=str(number), events={"events": events.sorted()})


def _stored(rows: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    if dtype != "bfloat16":
        return rows.astype(dtype)
    return (rows.view(np.uint32) >> 16).astype(np.uint16)
