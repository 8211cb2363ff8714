"""What a Python worker process keeps between tasks: its engine, vectors and prepared queries.

The only module of the jobs that loads torch; it is imported inside tasks.
"""

from functools import lru_cache

from qanchor_plugin.engine import PreparedQuery, QueryAnchorEngine, SoftPrompt, VectorSnapshot
from qanchor_plugin.engine.serving import load_to_serve
from qanchor_plugin.errors import EngineError


@lru_cache(maxsize=4)
def engine_of(name: str, device: str, digest: str) -> QueryAnchorEngine:
    """The engine, loaded once a process, with as many threads as the task has cores.

    Raises:
        EngineError: it cannot be loaded, or is not the one that the driver saw.
    """
    import torch
    from pyspark import TaskContext

    from spark_jobs.resources import device_of_task

    context = TaskContext.get()
    if context is not None:
        torch.set_num_threads(max(1, context.cpus()))
    engine = load_to_serve(name, device=device_of_task(device))
    if engine.digest != digest:
        raise EngineError(
            f"engine {name!r} has digest {engine.digest} on this executor and {digest} on the driver. "
            "Install the same files on every machine."
        )
    return engine


@lru_cache(maxsize=8)
def snapshot_at(folder: str) -> VectorSnapshot:
    """The vectors of one snapshot folder, memory-mapped."""
    return VectorSnapshot.open(folder)


@lru_cache(maxsize=256)
def query_of(name: str, device: str, digest: str, query: str, soft_prompt: str | None) -> PreparedQuery:
    """A query made ready for the engine."""
    prompt = SoftPrompt.load(soft_prompt) if soft_prompt else None
    return engine_of(name, device, digest).prepare_query(query, prompt)
