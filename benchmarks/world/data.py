"""The world on disk, and what judges it: Delta tables of behaviour, labels and truth beside them."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

from benchmarks.world.declarations import Place
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.synthetic import TABLES, write_world
from qanchor_plugin.evaluation.synthetic.counts import (
    world_counts,
    world_labels,
    world_thing_counts,
    world_truth,
)
from qanchor_plugin.evaluation.synthetic.vocabulary import MODALITIES, NUM_INTERESTS, NUM_ITEMS

JUDGING = ("labels", "truth", "latents")
MANIFEST = "world.json"
BATCH_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Labels and hand-made features of the same users, ascending by user.

    Attributes:
        users: (n,) int64 ids.
        labels, truth: by task, (n,) bool and (n,) true propensities.
        counts: (n, 27); things: (n, 250).
    """

    users: npt.NDArray[np.int64]
    labels: Mapping[str, npt.NDArray[np.bool_]]
    truth: Mapping[str, npt.NDArray[np.float64]]
    counts: npt.NDArray[np.float64]
    things: npt.NDArray[np.float64]

    @property
    def interests(self) -> npt.NDArray[np.float64]:
        """(n, 24): log(1 + events) of each true interest, as if it were known which things are of it."""
        of_interest = np.expm1(self.things[:, : NUM_INTERESTS * NUM_ITEMS])
        return np.log1p(of_interest.reshape(-1, NUM_INTERESTS, NUM_ITEMS).sum(axis=2))

    def take(self, rows: npt.NDArray[np.int64]) -> "Judged":
        """The users at these places."""
        return Judged(
            users=self.users[rows],
            labels={task: one[rows] for task, one in self.labels.items()},
            truth={task: one[rows] for task, one in self.truth.items()},
            counts=self.counts[rows],
            things=self.things[rows],
        )


def make_data(place: Place) -> dict[str, int]:
    """The world's tables stand under ``place.folder``; rows by table. What stands already is kept.

    Tables are streamed: memory does not grow with the number of users. A folder of another world is
    refused, so that no lake is ever read beside another world's labels.

    Raises:
        InputDataError: the folder holds another world.
    """
    manifest = place.folder / MANIFEST
    if manifest.is_file():
        told = json.loads(manifest.read_text())
        if told["world"] != place.described():
            raise InputDataError(
                f"{place.folder} holds the world {told['world']}, asked for is {place.described()}. "
                "Give another --output, or remove that folder."
            )
        return told["rows"]
    partial = place.folder / "partial"
    for stale in (place.raw, place.judging, partial):
        shutil.rmtree(stale, ignore_errors=True)
    rows = write_world(place.world, partial)
    place.judging.mkdir(parents=True)
    for name in TABLES:
        file = partial / f"{name}.parquet"
        if name in JUDGING:
            file.replace(place.judging / file.name)
        else:
            _to_delta(file, place.raw / name)
    shutil.rmtree(partial)
    manifest.write_text(json.dumps({"world": place.described(), "rows": rows}, indent=1))
    return rows


def _to_delta(file: Path, table: Path) -> None:
    with pq.ParquetFile(file) as opened:
        batches = opened.iter_batches(batch_size=BATCH_ROWS)
        write_deltalake(str(table), pa.RecordBatchReader.from_batches(opened.schema_arrow, batches))


def judged(place: Place) -> Judged:
    """Everybody's labels, truth and counts, read from disk."""
    num_users = place.world.num_users
    tables = {
        name: DeltaTable(str(place.raw / name)).to_pyarrow_table().sort_by("user_id")
        for name in (*MODALITIES, "tabular")
    }
    labels, truth = (pq.read_table(place.judging / f"{name}.parquet") for name in ("labels", "truth"))
    return Judged(
        users=np.arange(num_users),
        labels=world_labels(labels),
        truth=world_truth(truth),
        counts=world_counts(tables, place.world.cutoff, num_users),
        things=world_thing_counts(tables, num_users),
    )


def siblings(place: Place) -> npt.NDArray[np.int64]:
    """(n,) int64: whom each user duplicates, itself for all but the planted twins."""
    twin_of = pq.read_table(place.judging / "latents.parquet")["twin_of"]
    own = np.arange(place.world.num_users)
    found = twin_of.combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False)
    return np.where(found < 0, own, found)
