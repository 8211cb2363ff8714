"""A scenario's tuned tokens: they stand in the suffix, so the prefix cache stays valid."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qanchor_plugin.engine.weights import read_tensors, write_tensors
from qanchor_plugin.errors import EngineError
from qanchor_plugin.identity import digest

WEIGHTS = "soft_prompt.safetensors"
CONFIG = "soft_prompt.json"


@dataclass(frozen=True, kw_only=True)
class SoftPrompt:
    """Learnt tokens (num, C) float32 for one engine.

    Attributes:
        tokens: all but the last stand in the suffix between the query and ``<USER_EMB>``; the last is added
            to ``<USER_EMB>`` itself. A row is a hidden input (W), then what it asks of the prefix (M, none
            for ``hf``): C = W + M is the engine's ``token_width``.
        engine_digest: of the engine they were tuned on; no other may use them.
    """

    tokens: npt.NDArray[np.float32]
    engine_digest: str

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.dtype != np.float32 or not len(self.tokens):
            raise EngineError(
                f"soft prompt tokens are {self.tokens.dtype} of shape {self.tokens.shape}; "
                "give float32 (num, width), one at least."
            )

    @cached_property
    def digest(self) -> str:
        """Identity of tokens and engine."""
        return digest("soft-prompt", self.engine_digest, list(self.tokens.shape), self.tokens.tobytes())

    def save(self, folder: str | Path) -> None:
        """``folder`` holds the prompt: safetensors and a small JSON."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / WEIGHTS, {"tokens": self.tokens})
        text = json.dumps({"engine_digest": self.engine_digest, "digest": self.digest}, sort_keys=True)
        (folder / CONFIG).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "SoftPrompt":
        """The prompt that ``save`` wrote.

        Raises:
            EngineError: absent, truncated or altered; names the file.
        """
        path = Path(folder) / CONFIG
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EngineError(
                f"{path} cannot be read ({error}). Give a folder written by SoftPrompt.save."
            ) from error
        if not isinstance(given, dict) or set(given) != {"engine_digest", "digest"}:
            raise EngineError(f"{path} is not a soft prompt's. Give a folder written by SoftPrompt.save.")
        tensors = read_tensors(Path(folder) / WEIGHTS, {"tokens"})
        prompt = cls(tokens=tensors["tokens"], engine_digest=given["engine_digest"])
        if prompt.digest != given["digest"]:
            raise EngineError(f"{folder} does not hold the tokens that were saved. Tune the prompt again.")
        return prompt
