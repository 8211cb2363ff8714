"""``event_texts`` to ``event_vectors``: each distinct text through the event encoder once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.accumulators import Accumulator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.engine.event_vectors import VectorSnapshot, write_snapshot
from qanchor_plugin.errors import LakeError
from qanchor_plugin.identity import TEXT_ID_BYTES
from spark_jobs.engines import EngineRef
from spark_jobs.progress import Progress, stage
from spark_jobs.resources import engine_profile
from spark_jobs.tables import Lake
from spark_jobs.transforms.render import not_in

TEXTS_PER_TASK = 1024
VECTORS = "encoder_id string, text_id binary, vector binary"
SNAPSHOTS = "_vectors"


def encode(lake: Lake, settings: Settings, engine: EngineRef, progress: Progress) -> int:
    """Every event text has a vector of the engine's encoder; how many were new."""
    missing = missing_texts(lake, engine.encoder_id).persist()
    try:
        num_missing = missing.count()
        if not num_missing:
            return 0
        with stage(lake.spark, progress, "event vectors", num_missing) as done:
            spread = missing.repartition(-(-num_missing // TEXTS_PER_TASK))
            profile = engine_profile(lake.spark, settings)
            made = spread.mapInArrow(_encoder(engine, done), VECTORS, profile=profile)
            lake.append("event_vectors", made)
    finally:
        missing.unpersist()
    return num_missing


def missing_texts(lake: Lake, encoder_id: str) -> DataFrame:
    """The texts that have no vector of this encoder."""
    return not_in(lake.read("event_texts"), vectors_of(lake, encoder_id), S.TEXT_ID)


def vectors_of(lake: Lake, encoder_id: str) -> DataFrame:
    """The stored vectors of one encoder."""
    return lake.read("event_vectors").where(F.col(S.ENCODER_ID) == encoder_id)


def snapshot_folder(lake: Lake, encoder_id: str) -> Path:
    """Where an encoder's snapshots stand."""
    return lake.folder / SNAPSHOTS / encoder_id


def export_snapshot(lake: Lake, engine: EngineRef, *, force: bool) -> Path:
    """A snapshot of all the encoder's vectors stands; its folder.

    Args:
        force: write it even where the present one has as many texts as the table.
    """
    folder = snapshot_folder(lake, engine.encoder_id)
    if not force:
        known = _open(folder)
        if known is not None and known.num_texts == vectors_of(lake, engine.encoder_id).count():
            return known.folder
    table = vectors_of(lake, engine.encoder_id).select(S.TEXT_ID, S.VECTOR).toArrow()
    ids = _matrix(table[S.TEXT_ID], np.uint8, TEXT_ID_BYTES)
    vectors = _matrix(table[S.VECTOR], np.dtype("<f2"), engine.encoder_dim)
    return write_snapshot(folder, encoder_id=engine.encoder_id, ids=ids, vectors=vectors)


def current_snapshot(lake: Lake, encoder_id: str) -> Path | None:
    """The folder of the encoder's present snapshot; None when it is absent or damaged."""
    known = _open(snapshot_folder(lake, encoder_id))
    return None if known is None else known.folder


def _open(folder: Path) -> VectorSnapshot | None:
    try:
        return VectorSnapshot.open(folder)
    except LakeError:  # absent, or damaged: it is written anew from the table
        return None


def _matrix(column: pa.ChunkedArray, dtype: np.dtype | type, width: int) -> np.ndarray:
    joined = b"".join(column.to_pylist())
    return np.frombuffer(joined, dtype).reshape(len(column), width)


def _encoder(
    engine: EngineRef, done: Accumulator[int]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def encode_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from spark_jobs.executor import engine_of

        for batch in batches:
            vectors = engine_of(engine.name, engine.device, engine.digest).encode_texts(
                batch.column(S.TEXT).to_pylist()
            )
            done.add(batch.num_rows)
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array([engine.encoder_id] * batch.num_rows, pa.string()),
                    batch.column(S.TEXT_ID),
                    pa.array([row.astype("<f2").tobytes() for row in vectors], pa.binary()),
                ],
                [S.ENCODER_ID, S.TEXT_ID, S.VECTOR],
            )

    return encode_batches
