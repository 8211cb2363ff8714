"""The engine itself, called directly; ``int8`` is a dtype of it."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.workload import serve
from qanchor_plugin.engine import Prefix, PreparedQuery, QueryAnchorEngine
from qanchor_plugin.engine.load import WEIGHTS, read_config
from qanchor_plugin.engine.suffix import pack


class Engine:
    """See :class:`benchmarks.peers.workload.Peer`."""

    def __init__(self, folder: str, dtype: str, device: str) -> None:
        config = read_config(Path(folder)).with_(dtype=dtype, token_dtype="float32")
        self.engine = QueryAnchorEngine._of_weights(config, Path(folder) / WEIGHTS, device=device)
        self.device = device
        self.digest = self.engine.digest

    def fresh(self, users: np.ndarray, queries: np.ndarray) -> np.ndarray:
        prefixes = [self._prefix(one) for one in users]
        return self.engine.embed(prefixes, [self._query(one) for one in queries], [0] * len(users))

    def keep(self, user: np.ndarray) -> None:
        rows = torch.from_numpy(self._rows(user))[None].to(self.device)
        self.valid = torch.ones(rows.shape[:2], dtype=torch.bool, device=self.device)
        with torch.inference_mode():
            places = torch.arange(rows.shape[1], device=self.device)[None]
            self.kv = self.engine.modules.prefill(rows, places, self.valid)
            if self.device == "cuda":
                torch.cuda.synchronize()

    def more(self, queries: np.ndarray) -> np.ndarray:
        packed = pack([self._rows(one) for one in queries], multiple=1, time=self.engine.config.time)
        with torch.inference_mode():
            start, age = self.valid.sum(1), torch.zeros(1, 3, device=self.device)
            answer = self.engine.modules.answer(self.kv, self.valid, packed.to(self.valid.device), start, age)
            return answer[0].cpu().numpy()

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            rows = self.engine._language_model().embed_ids(torch.from_numpy(ids).to(self.device))
            return rows.float().cpu().numpy()

    def _prefix(self, ids: np.ndarray) -> Prefix:
        return Prefix(
            user=b"u",
            visible_digest="",
            as_of=0,
            num_events=1,
            tokens=self._rows(ids),
            positions=np.arange(len(ids), dtype=np.int32),
        )

    def _query(self, ids: np.ndarray) -> PreparedQuery:
        return PreparedQuery(
            query="q", rows=self._rows(ids), engine_digest=self.digest, soft_prompt_digest=None
        )


if __name__ == "__main__":
    serve(Engine)
