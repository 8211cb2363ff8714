"""A few users with their histories and texts."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile
from qanchor_plugin.errors import MissingVectorsError
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.sequence import UserHistory

SEED = 20170901
NO_GROUP = bytes(TEXT_ID_BYTES)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Users drawn for a preview.

    Attributes:
        histories: ascending by user.
        texts: every event text and group name of theirs, by text id.
        place: ``lake`` or ``sources``.
    """

    histories: list[UserHistory]
    texts: Mapping[bytes, str]
    place: str


class TextVectors:
    """Vectors of a sample's texts, encoded here: nothing is written to the lake.

    Args:
        texts: by text id.
        engine: a ``QueryAnchorEngine``; encodes each text once.
    """

    def __init__(self, texts: Mapping[bytes, str], engine: Any) -> None:
        self._row = {key: row for row, key in enumerate(texts)}
        self._encoder_id: str = engine.encoder_id
        self._vectors: npt.NDArray[np.float16] = engine.encode_texts(list(texts.values()))

    def lookup(self, ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """(N, 16) uint8 to (N, encoder_dim) float16.

        Raises:
            MissingVectorsError: ids outside the sample.
        """
        keys = [row.tobytes() for row in np.ascontiguousarray(ids)]
        unknown = sum(key not in self._row for key in keys)
        if unknown:
            raise MissingVectorsError(unknown, encoder_id=self._encoder_id)
        return self._vectors[[self._row[key] for key in keys]]


def from_lake(tables: LakeTables, profile: Profile, size: int) -> Sample | None:
    """Users from the lake, where it holds every modality as it is declared now; else None.

    Raises:
        LakeError: the lake cannot be read.
    """
    from qanchor_plugin.backend.lake_reader import LakeReader
    from qanchor_plugin.cli.lake_report import known_users

    stored: set[str] = set()
    for name in ("behaviour_sequences", "profile_rows"):
        if tables.exists(name):
            digests = tables.read(name, columns=[S.MODALITY_DIGEST])[S.MODALITY_DIGEST]
            stored |= set(pc.unique(digests).to_pylist())
    if not {modality.sequence_digest for modality in profile.modalities} <= stored:
        return None
    reader = LakeReader(tables)
    users = draw(sorted(known_users(tables, profile)), size)
    histories = list(reader.histories(profile, users).values())
    ids = sorted(_ids(histories))
    found = reader.texts(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, TEXT_ID_BYTES))
    texts = {key: text for key, text in zip(ids, found, strict=True) if text is not None}
    return Sample(histories=histories, texts=texts, place="lake")


def draw(users: Sequence[bytes], size: int) -> list[bytes]:
    """``size`` of the users at most, the same ones every time, ascending."""
    if len(users) <= size:
        return list(users)
    return sorted(random.Random(SEED).sample(list(users), size))


def _ids(histories: Sequence[UserHistory]) -> set[bytes]:
    found: set[bytes] = set()
    for history in histories:
        for events in history.events.values():
            matrices = (events.text_id, events.groups.reshape(-1, TEXT_ID_BYTES))
            found.update(row.tobytes() for matrix in matrices for row in matrix)
    return found - {NO_GROUP}
