"""A second world whose truth is known: six modalities, latent interests, ten tasks."""

from qanchor_plugin.evaluation.synthetic.tasks import SYNTHETIC_TASKS, SyntheticTask
from qanchor_plugin.evaluation.synthetic.world import CHUNK_USERS, TABLES, World, chunks, write_world

__all__ = ["CHUNK_USERS", "SYNTHETIC_TASKS", "TABLES", "SyntheticTask", "World", "chunks", "write_world"]
