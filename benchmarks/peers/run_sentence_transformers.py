"""sentence-transformers with last-token pooling: it keeps nothing, so every query reads the user again."""

from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from workload import serve

BATCH = 8


class Whole:
    """See :class:`benchmarks.peers.workload.Peer`; token ids are given, tokenising is not timed."""

    def __init__(self, folder: str, dtype: str, device: str) -> None:
        self.device = device
        options = {"dtype": getattr(torch, dtype)}
        transformer = Transformer(str(Path(folder) / "backbone"), model_kwargs=options)
        width = transformer.get_embedding_dimension()
        self.model = SentenceTransformer(modules=[transformer, Pooling(width, pooling_mode="lasttoken")])
        self.model.to(device).eval()

    @torch.inference_mode()
    def fresh(self, users: np.ndarray, queries: np.ndarray) -> np.ndarray:
        ids = np.concatenate([np.repeat(users, len(queries), 0), np.tile(queries, (len(users), 1))], axis=1)
        states = []
        for part in torch.from_numpy(ids).to(self.device).split(BATCH):
            inputs = {"input_ids": part, "attention_mask": torch.ones_like(part)}
            states.append(self.model(inputs)["sentence_embedding"].float().cpu().numpy())
        return np.concatenate(states).reshape(len(users), len(queries), -1)

    def keep(self, user: np.ndarray) -> None:
        self.user = user

    def more(self, queries: np.ndarray) -> np.ndarray:
        return self.fresh(self.user[None], queries)[0]


if __name__ == "__main__":
    serve(Whole)
