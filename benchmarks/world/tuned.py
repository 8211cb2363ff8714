"""Soft prompts where the truth is known and labels are many: tuned inside the folds, by users labelled."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.world.declarations import QUERIES, Place
from benchmarks.world.embed import entity_keys
from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.backend.vectors import vector_folder
from qanchor_plugin.engine import Prefix, QueryAnchorEngine, VectorSnapshot
from qanchor_plugin.evaluation.folds import Fold
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.sequence import slice_at
from qanchor_plugin.training.tuning import TunePlan, tune_each

Float32 = npt.NDArray[np.float32]
READ_TOGETHER = 512
CACHE_BYTES = 8_000_000_000


def prefixes_of(place: Place, engine: QueryAnchorEngine, users: Sequence[int]) -> list[Prefix]:
    """The users' prefixes at the labels' cutoff, in order."""
    settings, profile = place.settings(), place.profile
    reader = LakeReader(LakeTables(settings.lake))
    vectors = VectorSnapshot.open(vector_folder(settings.lake, engine.encoder_id))
    made: list[Prefix] = []
    for start in range(0, len(users), READ_TOGETHER):
        keys = entity_keys(profile.entities[0], users[start : start + READ_TOGETHER])
        histories = reader.histories(profile, keys)
        slices = [slice_at(histories[key], profile, place.cutoff_us) for key in keys]
        made += engine.build_prefixes(slices, vectors)
    return made


def tuned_features(
    engine: QueryAnchorEngine,
    task: str,
    prefixes: Sequence[Prefix],
    cutoff_us: int,
    labels: npt.NDArray[np.bool_],
    folds: Sequence[Fold],
    plan: TunePlan | None = None,
) -> tuple[list[Float32], int]:
    """Of each fold, (n, 128) under the prompt tuned on its training rows; and how many kept their start."""
    plan = plan or TunePlan(max_cache_bytes=CACHE_BYTES)
    cutoffs = [cutoff_us] * len(prefixes)
    subsets = [train for train, _ in folds]
    found = list(tune_each(engine, QUERIES[task], prefixes, cutoffs, labels.astype(np.int64), subsets, plan))
    asked = [engine.prepare_query(QUERIES[task], one.soft_prompt) for one in found]
    parts = [
        engine.embed(prefixes[start : start + READ_TOGETHER], asked, cutoffs[start : start + READ_TOGETHER])
        for start in range(0, len(prefixes), READ_TOGETHER)
    ]
    embedded = np.concatenate(parts)
    return [embedded[:, column] for column in range(len(folds))], sum(one.best_step == 0 for one in found)
