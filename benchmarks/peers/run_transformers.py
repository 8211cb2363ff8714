"""transformers with its own prefix cache: the cache expanded to a batch of queries, or query by query."""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel
from workload import serve


class Cached:
    """See :class:`benchmarks.peers.workload.Peer`."""

    def __init__(self, folder: str, dtype: str, device: str) -> None:
        self.device = device
        self.one_by_one = "one-by-one" in sys.argv
        model = AutoModel.from_pretrained(Path(folder) / "backbone", dtype=getattr(torch, dtype))
        self.model = model.to(device).eval()

    @torch.inference_mode()
    def fresh(self, users: np.ndarray, queries: np.ndarray) -> np.ndarray:
        if len(queries) == 1:
            ids = np.concatenate([users, np.repeat(queries, len(users), 0)], 1)
            return np.stack([self._last(self.model(self._ids(one[None]))) for one in ids])
        states = []
        for user in users:
            self.keep(user)
            states.append(self.more(queries))
        return np.stack(states)

    @torch.inference_mode()
    def keep(self, user: np.ndarray) -> None:
        self.cache = self.model(self._ids(user[None]), use_cache=True).past_key_values

    @torch.inference_mode()
    def more(self, queries: np.ndarray) -> np.ndarray:
        if self.one_by_one:
            return np.concatenate([self._on(one[None]) for one in queries])
        return self._on(queries)

    def _on(self, queries: np.ndarray) -> np.ndarray:
        cache = copy.deepcopy(self.cache)
        if len(queries) > 1:
            cache.batch_repeat_interleave(len(queries))
        return self._last(self.model(self._ids(queries), past_key_values=cache))

    def _ids(self, ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(ids).to(self.device)

    def _last(self, answer: Any) -> np.ndarray:
        return answer.last_hidden_state[:, -1].float().cpu().numpy()


if __name__ == "__main__":
    serve(Cached)
