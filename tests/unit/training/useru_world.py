"""A user of literal rows, shared by the tests of pairs."""

import json

import numpy as np

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence import Events, UserHistory

DAY = 86_400_000_000
SOURCE = SourceSpec(name="rows", path="rows", event_at="at")
PROFILE = Profile(
    "shopper",
    EntityRef(name="user", join_key="user_id", value_type="INT64"),
    [
        Modality("purchases", SOURCE, "{product}", group_by=("category", "department")),
        Modality("searches", SOURCE, "{terms}"),
        Modality("person", SOURCE, "{age}", kind="tabular"),
    ],
    window=None,
)

Row = tuple[float, str, str, str]
"""(day, product, category, department)."""


class World:
    """Histories by user, and the text of every id in them."""

    def __init__(self) -> None:
        self.text_of: dict[bytes, str] = {}

    def ids(self, texts: list[str]) -> np.ndarray:
        """(N, 16) uint8; "" is null."""
        self.text_of.update({text_id(text): text for text in texts if text})
        raw = b"".join(text_id(text) if text else bytes(16) for text in texts)
        return np.frombuffer(raw, np.uint8).reshape(-1, 16)

    def history(
        self, user: int, purchases: list[Row], searches: list[tuple[float, str]] = (), age: str = "30-39"
    ) -> UserHistory:
        """A user of these rows."""
        at = np.array([round(row[0] * DAY) for row in purchases], np.int64)
        groups = np.stack(
            [self.ids([row[2] for row in purchases]), self.ids([row[3] for row in purchases])], 1
        )
        bought = Events(
            event_at=at,
            known_at=at,
            text_id=self.ids([row[1] for row in purchases]),
            groups=groups,
            amounts=np.zeros((len(at), 0)),
        )
        events = {"purchases": bought.sorted()}
        events["searches"] = self._plain([(day, terms) for day, terms in searches])
        events["person"] = self._plain([(0.0, age)])
        return UserHistory(user=bytes([user] * 8), user_key=json.dumps({"user_id": user}), events=events)

    def _plain(self, rows: list[tuple[float, str]]) -> Events:
        at = np.array([round(day * DAY) for day, _ in rows], np.int64)
        return Events(
            event_at=at,
            known_at=at,
            text_id=self.ids([text for _, text in rows]),
            groups=np.zeros((len(rows), 0, 16), np.uint8),
            amounts=np.zeros((len(rows), 0)),
        ).sorted()
