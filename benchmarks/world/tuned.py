"""Soft prompts where labels are many: tuned on growing numbers of labelled users, judged on others.

The last fifth of the users are judged; prompts and probes see the first users alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.world.declarations import QUERIES, Place
from benchmarks.world.embed import entity_keys
from qanchor_plugin.engine import PreparedQuery, QueryAnchorEngine
from qanchor_plugin.evaluation.probe import out_of_fold_ranks
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.training.tuning import TunePlan, tune_each
from qanchor_plugin.training.tuning.behaviour import users_at

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
JUDGED_SHARE = 0.2
LABELLED_SHARES = (0.2, 1.0)
"""Of the users that are not judged."""
READ_TOGETHER = 512
PLAN = TunePlan(max_cache_bytes=8_000_000_000)
PLAIN, TUNED = "trained", "trained, prompt tuned"


def named(kind: str, num_labelled: int) -> str:
    """A row's name."""
    return f"{kind}, {num_labelled:,} labelled"


class Tuner:
    """One engine's prompts for the world's tasks.

    Args:
        place: the world.
        engine: folder of the engine.
        users: ids, those that are judged last.
    """

    def __init__(self, place: Place, engine: str, users: Sequence[int]) -> None:
        self.engine = QueryAnchorEngine.load(engine, device="cpu")
        self.cutoffs = [place.cutoff_us] * len(users)
        keys, tables = entity_keys(place.profile.entities[0], users), LakeTables(place.settings().lake)
        self.num_judged = round(JUDGED_SHARE * len(users))
        self.sizes = [round(share * (len(users) - self.num_judged)) for share in LABELLED_SHARES]
        self.prefixes = users_at(keys, place.cutoff_us, place.profile, self.engine, tables).prefixes

    def ranks(self, task: str, labels: npt.NDArray[np.bool_]) -> dict[str, Float64]:
        """By model (:func:`named`), (1, judged) ranks of the probe.

        Args:
            task: its query is asked.
            labels: (users,) bool; those of the judged are seen by no prompt and no probe.
        """
        subsets = [np.arange(size) for size in self.sizes]
        found = tune_each(
            self.engine,
            QUERIES[task],
            self.prefixes,
            self.cutoffs,
            labels.astype(np.int64),
            subsets,
            PLAN,
        )
        asked = [self.engine.prepare_query(QUERIES[task])]
        asked += [self.engine.prepare_query(QUERIES[task], one.soft_prompt) for one in found]
        embedded = self._embedded(asked)
        judged = np.arange(len(labels) - self.num_judged, len(labels))
        ranks = {}
        for number, rows in enumerate(subsets):
            for kind, column in ((PLAIN, 0), (TUNED, 1 + number)):
                scored = out_of_fold_ranks(embedded[:, column], labels, [[(rows, judged)]])
                ranks[named(kind, len(rows))] = scored[:, judged]
        return ranks

    def _embedded(self, asked: Sequence[PreparedQuery]) -> Float32:
        """(users, Q, 128)."""
        parts = [
            self.engine.embed(self.prefixes[run], asked, self.cutoffs[run])
            for run in (
                slice(start, start + READ_TOGETHER) for start in range(0, len(self.prefixes), READ_TOGETHER)
            )
        ]
        return np.concatenate(parts)
