"""Event vectors for the online path: the lake's snapshot, and texts that came after it."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.engine.event_vectors import CURRENT, Float16, UInt8, VectorSnapshot
from qanchor_plugin.errors import LakeError, MissingVectorsError

logger = logging.getLogger(__name__)

MAX_NEW_TEXTS = 100_000
"""Vectors of texts newer than the snapshot that one process holds (75 MB at 384 dimensions)."""


class TextEncoder(Protocol):
    """The part of an engine that turns texts into vectors."""

    @property
    def encoder_id(self) -> str:
        """Identity of the event encoder."""

    @property
    def encoder_dim(self) -> int:
        """Dimension of its vectors."""

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> Float16:
        """(N, encoder_dim) float16, one row a text, whatever the batch."""


class OnlineVectors:
    """Vectors by text id: from the newest snapshot, else encoded now and remembered.

    Texts whose event arrived after the last refresh have no stored vector yet; encoding is
    deterministic per text, so an answer does not depend on which of the two ways was taken.

    Args:
        folder: the encoder's folder of snapshots.
        reader: gives the texts themselves.
        encoder: the engine.
        check_seconds: how often ``CURRENT`` is looked at again.
    """

    def __init__(
        self, folder: Path, reader: LakeReader, encoder: TextEncoder, *, check_seconds: float = 2.0
    ) -> None:
        self._folder, self._reader, self._encoder = folder, reader, encoder
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self._snapshot: VectorSnapshot | None = None
        self._current = ""
        self._checked_at = -np.inf
        self._new: OrderedDict[bytes, Float16] = OrderedDict()
        self.num_encoded = 0

    def lookup(self, ids: UInt8) -> Float16:
        """(N, 16) uint8 to (N, encoder_dim) float16.

        Raises:
            MissingVectorsError: ids that no event text has.
            LakeError: the snapshot is corrupt.
        """
        snapshot = self._newest()
        if snapshot is None:
            return self._encoded(ids)
        try:
            return snapshot.lookup(ids)
        except MissingVectorsError:
            absent = absent_from(snapshot, ids)
        found = np.zeros((len(ids), self._encoder.encoder_dim), np.float16)
        found[~absent] = snapshot.lookup(ids[~absent])
        found[absent] = self._encoded(ids[absent])
        return found

    def _newest(self) -> VectorSnapshot | None:
        with self._lock:
            if time.monotonic() - self._checked_at < self._check_seconds:
                return self._snapshot
            named = self._folder / CURRENT
            current = named.read_text(encoding="utf-8").strip() if named.is_file() else ""
            if current and current != self._current:
                self._snapshot = VectorSnapshot.open(self._folder / current)
                self._current = current
            self._checked_at = time.monotonic()
            return self._snapshot

    def _encoded(self, ids: UInt8) -> Float16:
        keys = [row.tobytes() for row in ids]
        with self._lock:
            unknown = [key for key in dict.fromkeys(keys) if key not in self._new]
            if unknown:
                self._encode(unknown)
            found = np.stack([self._new[key] for key in keys]) if keys else np.zeros((0, 0), np.float16)
            while len(self._new) > MAX_NEW_TEXTS:
                self._new.popitem(last=False)
        return found

    def _encode(self, keys: list[bytes]) -> None:
        texts = self._reader.texts(np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1))
        known = [text for text in texts if text is not None]
        if len(known) < len(texts):
            raise MissingVectorsError(len(texts) - len(known), encoder_id=self._encoder.encoder_id)
        for key, vector in zip(keys, self._encoder.encode_texts(known), strict=True):
            self._new[key] = vector
        self.num_encoded += len(keys)
        logger.info("encoded %d event texts that the last refresh had not seen", len(keys))


def absent_from(snapshot: VectorSnapshot, ids: UInt8) -> np.ndarray:
    """(N,) bool: which ids the snapshot lacks, found by halving."""
    absent = np.zeros(len(ids), bool)
    pending = [np.arange(len(ids))]
    while pending:
        rows = pending.pop()
        try:
            snapshot.lookup(ids[rows])
        except MissingVectorsError:
            if len(rows) == 1:
                absent[rows] = True
            else:
                pending += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return absent


def vector_folder(lake: str, encoder_id: str) -> Path:
    """The encoder's folder of snapshots.

    Raises:
        LakeError: the lake is not a local folder; vectors are memory-mapped.
    """
    if "://" in lake:
        raise LakeError(
            f"event vectors are memory-mapped, so the lake {lake!r} must be a local or mounted folder. "
            "Mount it, or run a worker where it is mounted."
        )
    return Path(lake) / "_vectors" / encoder_id
