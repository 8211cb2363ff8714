"""Who makes embeddings of prefixes and queries inside a task: this executor's engine, or workers."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from qanchor_plugin.backend import Ask
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.errors import LakeError
from qanchor_plugin.prefix_store import PrefixEntry, make_entry
from spark_jobs.build_prefixes import prefix_id_of
from spark_jobs.engines import AskedGroup, AskedQuery

if TYPE_CHECKING:
    from qanchor_plugin.backend.flight import FlightBackend
    from qanchor_plugin.engine import Prefix, PreparedQuery
    from qanchor_plugin.engine.kv import KeptKV

Float32 = npt.NDArray[np.float32]

_DTYPES = {"<f4": "float32", "<f2": "float16", "<u2": "bfloat16"}


class Embedder(Protocol):
    """Answers the queries of a group."""

    def prepare(self, queries: Sequence[AskedQuery]) -> object:
        """What these queries need is loaded, so that :meth:`embed` does nothing but answer."""

    def embed(
        self,
        prefixes: "Sequence[Prefix]",
        queries: Sequence[AskedQuery],
        cutoffs: Sequence[int],
        kept: "Sequence[KeptKV | None] | None" = None,
    ) -> Float32:
        """(P, Q, 128) float32, L2-normalised: every query of every prefix at its cutoff (microseconds).

        Args:
            kept: stored keys and values of each prefix, where there are any; workers have their own.

        Raises:
            EngineError, BackendError: there is no answer.
        """


def embedder_of(group: AskedGroup) -> Embedder:
    """As the settings said on the driver; what it holds is kept by the process for later tasks."""
    return OnExecutor(group) if group.workers is None else OnWorkers(group)


class OnExecutor:
    """The engine of this very process."""

    def __init__(self, group: AskedGroup) -> None:
        self._ref = group.engine

    def prepare(self, queries: Sequence[AskedQuery]) -> "list[PreparedQuery]":
        """As the protocol says; the queries, made ready."""
        from spark_jobs.executor import query_of

        ref = self._ref
        return [query_of(ref.name, ref.device, ref.digest, one.query, one.soft_prompt) for one in queries]

    def embed(
        self,
        prefixes: "Sequence[Prefix]",
        queries: Sequence[AskedQuery],
        cutoffs: Sequence[int],
        kept: "Sequence[KeptKV | None] | None" = None,
    ) -> Float32:
        """As the protocol says."""
        from spark_jobs.executor import engine_of

        engine = engine_of(self._ref.name, self._ref.device, self._ref.digest)
        return engine.embed(prefixes, self.prepare(queries), cutoffs, kept=kept)


class OnWorkers:
    """Soft tokens go to the pool at batch priority, vectors come back; no engine is loaded here."""

    def __init__(self, group: AskedGroup) -> None:
        assert group.workers is not None
        self._group, self._pool = group, pool_of(group.workers)

    def prepare(self, queries: Sequence[AskedQuery]) -> None:
        """Nothing to do: workers prepare queries themselves."""

    def embed(
        self,
        prefixes: "Sequence[Prefix]",
        queries: Sequence[AskedQuery],
        cutoffs: Sequence[int],
        kept: "Sequence[KeptKV | None] | None" = None,
    ) -> Float32:
        """As the protocol says."""
        answers = self._pool.embed_prefixes(
            [self._entry(one) for one in prefixes], cutoffs, [self._ask(one) for one in queries]
        )
        return np.array([[one.embedding for one in row] for row in answers], np.float32)

    def _ask(self, query: AskedQuery) -> Ask:
        return Ask(
            profile=self._group.profile,
            query=query.query,
            engine=self._group.engine.name,
            engine_digest=self._group.engine.digest,
            soft_prompt=query.soft_prompt,
            scenario_id=query.scenario_id,
        )

    def _entry(self, prefix: "Prefix") -> PrefixEntry:
        dtype = _DTYPES.get(prefix.tokens.dtype.str)
        if dtype is None:
            raise LakeError(
                f"soft tokens are {prefix.tokens.dtype}; accepted are {sorted(_DTYPES.values())}. "
                "Run the refresh again to build the prefixes anew."
            )
        return make_entry(
            user=prefix.user,
            prefix_id=prefix_id_of(self._group, prefix.visible_digest),
            visible_digest=prefix.visible_digest,
            as_of=prefix.as_of,
            num_events=prefix.num_events,
            tokens=prefix.tokens,
            tokens_dtype=dtype,
            positions=prefix.positions,
        )


@lru_cache(maxsize=4)
def pool_of(workers: WorkerSettings) -> "FlightBackend":
    """The connections of this process, made once."""
    from qanchor_plugin.backend.flight import FlightBackend

    return FlightBackend(workers)
