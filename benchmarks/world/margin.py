"""The margin filter where false negatives were planted: is a twin masked, and who else is?

Shape letters: B users of a batch, D embedding width.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.results import Row, as_run, machine
from benchmarks.world.declarations import Place
from benchmarks.world.embed import entity_keys
from benchmarks.world.figures import COMMAND
from qanchor_plugin.backend import LakeReader
from qanchor_plugin.backend.vectors import vector_folder
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.event_vectors import VectorSnapshot
from qanchor_plugin.evaluation.margin_filter import FilterQuality, margin_filter_quality
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.sequence import UserHistory, slice_at
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from qanchor_plugin.training.reading import reading_of
from qanchor_plugin.training.towers import Towers
from qanchor_plugin.training.useru.future import future_pair, future_query

Float32 = npt.NDArray[np.float32]
FUTURE_BINS = (7, 30, 60)
MARGINS = (0.0, 0.05, 0.1, 0.2)


def twin_batches(sibling: npt.NDArray[np.int64], *, size: int, most: int) -> list[npt.NDArray[np.int64]]:
    """Batches of users (ids), each ``size`` in a row, so that a twin stands with whom it duplicates."""
    return [np.arange(start, start + size) for start in range(0, len(sibling) - size + 1, size)][:most]


def towers_of(place: Place, engine: QueryAnchorEngine, users: Sequence[int]) -> tuple[Float32, Float32]:
    """(B, D) of both towers for the ``future`` pairs of ``users`` at :func:`future_cutoff`."""
    settings, profile, cutoff = place.settings(), place.profile, future_cutoff(place)
    reader = LakeReader(LakeTables(settings.lake))
    found = reader.histories(profile, entity_keys(profile.entities[0], users))
    histories = [found[key] for key in entity_keys(profile.entities[0], users)]
    ids = _ids(histories)
    place_of = {row.tobytes(): number for number, row in enumerate(ids)}
    text_of = {row.tobytes(): text or "" for row, text in zip(ids, reader.texts(ids), strict=True)}
    pairs = [
        future_pair(one, profile, cutoff, text_of, known_until=place.cutoff_us, bins=FUTURE_BINS)
        for one in histories
    ]
    answers = [pair.answer for pair in pairs if pair is not None]
    readings = [
        reading_of(
            slice_at(one, profile, cutoff),
            engine.config,
            lambda asked: np.array([place_of[row.tobytes()] for row in asked], np.intp),
        )
        for one in histories
    ]
    vectors = VectorSnapshot.open(vector_folder(settings.lake, engine.encoder_id)).lookup(ids)
    texts = list(dict.fromkeys(answers))
    with torch.inference_mode():
        towers = Towers(engine)
        read = towers.read(readings, torch.from_numpy(vectors.astype(np.float32)))
        users_BD = towers.users(read, range(len(readings)), [future_query(FUTURE_BINS)] * len(readings))
        answers_AD = towers.answers(texts)
    return users_BD.numpy(), answers_AD.numpy()[[texts.index(one) for one in answers]]


def future_cutoff(place: Place) -> int:
    """The last whole day at which the pairs' futures end before the labels' cutoff (microseconds)."""
    return place.cutoff_us - (FUTURE_BINS[-1] + 1) * MICROS_PER_DAY


def filter_quality(
    place: Place, engine: str, sibling: npt.NDArray[np.int64], *, size: int = 200, most: int = 10
) -> dict[float, FilterQuality]:
    """By margin, the filter's quality over the pairs of all batches."""
    loaded = QueryAnchorEngine.load(engine, device="cpu")
    batches = twin_batches(sibling, size=size, most=most)
    towers = [towers_of(place, loaded, users.tolist()) for users in batches]
    return {
        margin: pooled(
            [
                margin_filter_quality(user, answer, sibling[users], margin=margin)
                for users, (user, answer) in zip(batches, towers, strict=True)
            ]
        )
        for margin in MARGINS
    }


def pooled(parts: Sequence[FilterQuality]) -> FilterQuality:
    """The quality over all batches' pairs together; NaN where nothing was removed or planted."""
    hits = sum(round(one.recall * one.num_planted) for one in parts if one.num_planted)
    removed, planted = sum(one.num_removed for one in parts), sum(one.num_planted for one in parts)
    return FilterQuality(
        precision=hits / removed if removed else float("nan"),
        recall=hits / planted if planted else float("nan"),
        num_removed=removed,
        num_planted=planted,
    )


def margin_rows(table: str, engine: str, quality: dict[float, FilterQuality]) -> list[Row]:
    """Precision and recall of each margin; a share of nothing is left out."""
    return [
        Row(
            table=table,
            row=f"{engine}, margin {margin:g}: {name}",
            value=value,
            unit="of pairs",
            n=count,
            command=as_run(COMMAND),
            machine=machine(),
        )
        for margin, one in quality.items()
        for name, value, count in (
            ("precision", one.precision, one.num_removed),
            ("recall", one.recall, one.num_planted),
        )
        if np.isfinite(value)
    ]


def _ids(histories: Sequence[UserHistory]) -> npt.NDArray[np.uint8]:
    """(V, 16): every distinct text and group id."""
    parts = [
        ids.reshape(-1, TEXT_ID_BYTES)
        for one in histories
        for events in one.events.values()
        for ids in (events.text_id, events.groups)
    ]
    return np.unique(np.concatenate(parts), axis=0)
