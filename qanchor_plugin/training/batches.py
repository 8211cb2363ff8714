"""Batches of a lake's ``useru_pairs``, each a function of the seed and the step alone.

Shape letters: B readings, P pairs, V texts, E encoder width.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.declare import Profile
from qanchor_plugin.engine.build_prefix import Vectors
from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.sequence.history import UInt8
from qanchor_plugin.sequence.slice import Sight, sight_at
from qanchor_plugin.training.pair_table import NO_PAIRS, PairTable
from qanchor_plugin.training.reading import Reading
from qanchor_plugin.training.shard_readings import ShardReadings

logger = logging.getLogger(__name__)

_SHARD, _BATCH, _HELD_OUT = 1, 2, 3
"""What a random draw is for: draws for one purpose do not move another's."""


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """One optimisation step's input: B readings, P pairs about them, and T answers that are told, not asked.

    Attributes:
        readings: B, each once.
        vectors_VE: float32, the texts that the readings' rows point into.
        reading_of_pair: P.
        queries, answers: P.
        alternatives: P, () where the pair has none.
        told_reading, told_answers, told_alternatives: T outcomes of the same readings whose questions are
            not asked; an embedding of any question should tell them.
    """

    readings: tuple[Reading, ...]
    vectors_VE: torch.Tensor
    reading_of_pair: tuple[int, ...]
    queries: tuple[str, ...]
    answers: tuple[str, ...]
    alternatives: tuple[tuple[str, ...], ...]
    told_reading: tuple[int, ...] = ()
    told_answers: tuple[str, ...] = ()
    told_alternatives: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What a person needs to look into the batch: users (hex), cutoffs (microseconds) and pairs."""
        pairs = zip(self.reading_of_pair, self.queries, self.answers, strict=True)
        return {
            "readings": [
                {"user": one.user.hex(), "cutoff": one.cutoff, "num_tokens": len(one.positions_L)}
                for one in self.readings
            ],
            "pairs": [{"reading": row, "query": query, "answer": answer} for row, query, answer in pairs],
        }


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How batches are made.

    Attributes:
        readings_per_step: users at a cutoff, one cutoff a user.
        queries_per_step: outcome questions, the same for all readings where they exist.
        told_per_step: further outcome questions whose answers are told without being asked.
        other_pairs_per_reading: most pairs of other kinds about one reading.
        kinds: pairs of these kinds only; None takes all.
        steps_per_shard: steps in a row on one shard, so that its readings are made once.
        max_cached_shards: shards held in memory (some 30 MB each for 256 users of 600 events).
        held_out_batches: most batches of held-out users.
        seed: of every draw.
    """

    readings_per_step: int = 32
    queries_per_step: int = 8
    told_per_step: int = 32
    other_pairs_per_reading: int = 1
    kinds: tuple[str, ...] | None = None
    steps_per_shard: int = 8
    max_cached_shards: int = 16
    held_out_batches: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 1 if name in ("readings_per_step", "steps_per_shard", "max_cached_shards") else 0
            if name != "kinds" and value < least:
                raise InputDataError(f"batch plan: {name} is {value}; it must be {least} or more.")


class PairBatches:
    """Batches of a lake's ``useru_pairs``, streamed shard by shard through pyarrow.

    Args:
        tables: the lake.
        profile: whose behaviour is read.
        config: the engine's.
        vectors: of every event text.
        plan: how batches are made.
        num_template: tokens before the soft ones.

    Attributes:
        table: the pairs, at the version that was newest when this was made.
        num_small_batches: batches with fewer readings than planned, because there were no more users.

    Raises:
        InputDataError: no pairs to train on; names the command that makes them.
        LakeError: the lake cannot be read.
    """

    def __init__(
        self,
        tables: LakeTables,
        profile: Profile,
        config: EngineConfig,
        vectors: Vectors,
        *,
        plan: BatchPlan,
        num_template: int = 1,
    ) -> None:
        self._reader, self._profile, self._config = LakeReader(tables), profile, config
        self._vectors, self.plan, self._num_template = vectors, plan, num_template
        self.table = PairTable(tables.lake, kinds=plan.kinds)
        self._shards = self.table.shards(held_out=False)
        if not self._shards:
            raise InputDataError(
                f"all pairs of the lake {tables.lake!r} are about held-out users; none is left to train on. "
                f"{NO_PAIRS}"
            )
        self._cached: OrderedDict[int, ShardReadings] = OrderedDict()
        self._held_out: list[PairBatch] | None = None
        self.num_small_batches = 0

    def batch(self, step: int) -> PairBatch:
        """The batch of ``step``: the same whenever and in whatever order it is asked for.

        Raises:
            InputDataError: the users are empty, or not in the lake.
            MissingVectorsError: some texts have no vector yet.
        """
        shard = self._readings(self._shard_at(step))
        random = np.random.default_rng([self.plan.seed, _BATCH, step])
        keys = self._keys(shard, random)
        if len(keys) < self.plan.readings_per_step:
            self._count_small(len(keys))
        return self._made(shard, keys, random)

    def held_out(self) -> Iterator[PairBatch]:
        """Batches of held-out users in a fixed order, one a shard; made once and kept."""
        if self._held_out is None:
            self._held_out = []
            for number in self.table.shards(held_out=True)[: self.plan.held_out_batches]:
                shard = self._opened(number, held_out=True)
                random = np.random.default_rng([self.plan.seed, _HELD_OUT, number])
                self._held_out.append(self._made(shard, self._keys(shard, random), random))
        return iter(self._held_out)

    def newest_sights(self) -> Iterator[Sight]:
        """Every user that is trained on, once, as seen at the newest cutoff of their pairs."""
        for number in self._shards:
            newest = self.table.newest_cutoffs(number)
            for user, history in self._reader.histories(self._profile, list(newest)).items():
                yield sight_at(history, self._profile, newest[user])

    def vectors_of(self, ids: UInt8) -> npt.NDArray[np.float32]:
        """(N, E) of texts by their (N, 16) ids."""
        return self._vectors.lookup(ids).astype(np.float32)

    def _shard_at(self, step: int) -> int:
        """Every shard in turn for ``steps_per_shard`` steps, in another order each round."""
        turn, place = divmod(step // self.plan.steps_per_shard, len(self._shards))
        order = np.random.default_rng([self.plan.seed, _SHARD, turn]).permutation(len(self._shards))
        return self._shards[order[place]]

    def _readings(self, number: int) -> ShardReadings:
        if number not in self._cached:
            while len(self._cached) >= self.plan.max_cached_shards:
                self._cached.popitem(last=False)
            self._cached[number] = self._opened(number, held_out=False)
        self._cached.move_to_end(number)
        return self._cached[number]

    def _opened(self, number: int, *, held_out: bool) -> ShardReadings:
        side = "held-out users of shard" if held_out else "shard"
        return ShardReadings(
            self.table.shard(number, held_out=held_out),
            self._reader,
            self._profile,
            self._config,
            num_template=self._num_template,
            where=f"{side} {number} of useru_pairs",
        )

    def _keys(self, shard: ShardReadings, random: np.random.Generator) -> list[int]:
        """Keys with outcome questions first, at most one a user: another cutoff of a user is no negative."""
        order = random.permutation(len(shard.pairs.keys)).tolist()
        order.sort(key=lambda key: key not in shard.outcomes)
        of_user: dict[bytes, int] = {}
        for key in order:
            of_user.setdefault(shard.pairs.keys[key][0], key)
        return list(of_user.values())[: self.plan.readings_per_step]

    def _made(self, shard: ShardReadings, keys: list[int], random: np.random.Generator) -> PairBatch:
        chosen, told = self._pairs(shard, keys, random)
        if not chosen:
            raise InputDataError(
                f"a batch of {len(keys)} readings has no pairs: its users have only pairs of kinds that the "
                "plan "
                f"leaves out (queries_per_step {self.plan.queries_per_step}, other_pairs_per_reading "
                f"{self.plan.other_pairs_per_reading}). Raise them, or make other pairs: qanchor pairs."
            )
        readings = [shard.reading(key) for key in keys]
        if all(shard.is_empty(key) for key in keys):
            shard.refuse_if_all_empty()
        moved, ids = _compacted(readings, shard.text_ids())
        vectors = self.vectors_of(ids)
        pairs = shard.pairs
        return PairBatch(
            readings=moved,
            vectors_VE=torch.from_numpy(vectors),
            reading_of_pair=tuple(row for row, _ in chosen),
            queries=tuple(pairs.queries[place] for _, place in chosen),
            answers=tuple(pairs.answers[place] for _, place in chosen),
            alternatives=tuple(pairs.alternatives[place] for _, place in chosen),
            told_reading=tuple(row for row, _ in told),
            told_answers=tuple(pairs.answers[place] for _, place in told),
            told_alternatives=tuple(pairs.alternatives[place] for _, place in told),
        )

    def _pairs(
        self, shard: ShardReadings, keys: list[int], random: np.random.Generator
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(row of ``keys``, pair) of what is asked, and of what is told: the same outcome questions for all;
        to what is asked, each reading's other pairs are added."""
        drawn = self._questions([shard.outcomes.get(key, {}) for key in keys], random)
        questions, quiet = drawn[: self.plan.queries_per_step], drawn[self.plan.queries_per_step :]
        chosen, told = [], []
        for row, key in enumerate(keys):
            asked = shard.outcomes.get(key, {})
            chosen += [(row, asked[query]) for query in questions if query in asked]
            told += [(row, asked[query]) for query in quiet if query in asked]
            others = shard.others.get(key, [])
            count = min(self.plan.other_pairs_per_reading, len(others))
            picked = sorted(random.choice(len(others), count, replace=False).tolist()) if count else []
            chosen += [(row, others[one]) for one in picked]
        return chosen, told

    def _questions(self, asked: Sequence[dict[str, int]], random: np.random.Generator) -> list[str]:
        """Questions to ask, then questions to tell, drawn by how many of the readings have them."""
        counts = Counter(query for one in asked for query in one)
        queries = sorted(counts)
        count = min(self.plan.queries_per_step + self.plan.told_per_step, len(queries))
        if not count:
            return []
        weights = np.array([counts[query] for query in queries], float)
        drawn = random.choice(len(queries), count, replace=False, p=weights / weights.sum())
        return [queries[one] for one in drawn.tolist()]

    def _count_small(self, found: int) -> None:
        self.num_small_batches += 1
        if self.num_small_batches == 1:
            logger.warning(
                "a batch has %d users, %d are planned: the shard has no more. Contrast is weaker with few "
                "users; lower readings_per_step, or make larger shards.",
                found,
                self.plan.readings_per_step,
            )


def _compacted(readings: Sequence[Reading], ids: UInt8) -> tuple[tuple[Reading, ...], UInt8]:
    """The readings with texts numbered among themselves in the order of their ids, and those ids: the
    numbers must not depend on what was read before."""
    rows = np.unique(np.concatenate([part for one in readings for part in (one.event_text, one.group_text)]))
    own = ids[rows]
    order = np.argsort(own.view(f"V{own.shape[1]}").ravel())
    place = np.empty(len(rows), np.int32)
    place[order] = np.arange(len(rows), dtype=np.int32)

    def moved(texts: np.ndarray) -> np.ndarray:
        return place[np.searchsorted(rows, texts)]

    renumbered = tuple(
        replace(one, event_text=moved(one.event_text), group_text=moved(one.group_text)) for one in readings
    )
    return renumbered, own[order]
