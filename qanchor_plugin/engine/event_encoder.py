"""The sentence encoder of event texts and, in the demo preset, of queries; loaded when first used.

Its identity is a digest of its files, so an engine is loaded, compared and asked for prefixes
without loading it.
"""

import hashlib
import threading
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin.engine.sources import resolve_folder
from qanchor_plugin.errors import EngineError
from qanchor_plugin.extras import require
from qanchor_plugin.identity import digest

Float16 = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]

_IDENTIFYING = (".safetensors", ".json", ".txt", ".model")
_NOT_IDENTIFYING = ("data_config.json", "config_sentence_transformers.json")
LENGTH_MULTIPLE = 8
FORWARD_TOKENS = 1024
MAX_ROWS = 32


class EventEncoder:
    """A sentence-transformers model in a folder, with its own pooling (mean or CLS).

    Attributes:
        folder: where its files stand.
        dim: width of its vectors.
        encoder_id: digest of its files and of how they are used.
    """

    def __init__(self, source: str, *, dim: int, device: str = "cpu") -> None:
        self.folder = resolve_folder(source, what="sentence encoder")
        self.dim = dim
        self.device = device
        self._lock = threading.Lock()
        self._model: Any = None

    @cached_property
    def encoder_id(self) -> str:
        """32 hex characters: changes with weights, tokenizer, pooling or length limit."""
        return digest("event-encoder/1", _files_digest(str(self.folder)), self.dim)

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._model is not None

    def encode(self, texts: Sequence[str]) -> Float16:
        """(N, dim) float16: L2-normalised vectors of ``texts``, in order.

        Each distinct text is encoded once, in a forward of fixed shape chosen by its own number of
        tokens: its vector does not depend on its neighbours. Words like ``[SEP]`` are plain text.
        """
        distinct = list(dict.fromkeys(texts))
        vectors = np.zeros((len(distinct), self.dim), np.float16)
        if not distinct:
            return vectors
        ids = self.model.tokenizer(distinct, truncation=True, max_length=self.model.max_seq_length)
        lengths = np.array([len(one) for one in ids["input_ids"]])
        buckets = -(-lengths // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        for bucket in np.unique(buckets):
            rows = np.flatnonzero(buckets == bucket)
            size = _rows_of(int(bucket))
            for start in range(0, len(rows), size):
                chunk = rows[start : start + size]
                vectors[chunk] = self._forward([ids["input_ids"][row] for row in chunk], int(bucket))
        place = {text: row for row, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]]

    def encode_query(self, query: str) -> tuple[Float32, Float32]:
        """A query's token states (T, dim), special tokens included, and its sentence vector (dim,)."""
        import torch

        model = self.model
        ids = model.tokenizer([query], return_tensors="pt")
        inputs = {name: ids[name].to(model.device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            output = model(inputs)
        states = output["token_embeddings"][0].float().cpu().numpy()
        return states, output["sentence_embedding"][0].float().cpu().numpy()

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones included, without loading the model."""
        return len(self._tokenizer.encode(text).ids)

    @property
    def model(self) -> Any:
        """The loaded ``SentenceTransformer``.

        Raises:
            EngineError: its files are unreadable, or its vectors are not ``dim`` wide.
        """
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return self._model

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizers = require("tokenizers", purpose="counting query tokens")
        path = self.folder / "tokenizer.json"
        if not path.is_file():
            raise EngineError(f"{path} is absent. Save the encoder with a fast tokenizer.")
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        return tokenizer

    def _load(self) -> Any:
        library = require("sentence_transformers", purpose="encoding texts")
        try:
            model = library.SentenceTransformer(str(self.folder), device=self.device, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise EngineError(
                f"the sentence encoder in {self.folder} cannot be loaded: {error}. "
                "Check that the folder is complete, or fetch it again."
            ) from error
        model.tokenizer.split_special_tokens = True
        model.eval()
        width = model.get_embedding_dimension()
        if width != self.dim:
            raise EngineError(
                f"the sentence encoder in {self.folder} makes {width}-d vectors, the engine wants "
                f"{self.dim}. Set encoder_dim in config.json."
            )
        return model

    def _forward(self, ids: list[list[int]], length: int) -> Float32:
        """(len(ids), dim) float32 of token ids, padded to the length's own shape."""
        import torch

        model, size = self.model, _rows_of(length)
        tokens = torch.full((size, length), model.tokenizer.pad_token_id or 0)
        mask = torch.zeros(size, length, dtype=torch.int64)
        for row in range(size):
            one = ids[min(row, len(ids) - 1)]
            tokens[row, : len(one)] = torch.tensor(one)
            mask[row, : len(one)] = 1
        inputs = {"input_ids": tokens.to(model.device), "attention_mask": mask.to(model.device)}
        with torch.inference_mode():
            output = model(inputs)
        vectors = torch.nn.functional.normalize(output["sentence_embedding"].float(), dim=-1)
        return vectors[: len(ids)].cpu().numpy()


def _rows_of(length: int) -> int:
    """Texts of one forward: a matter of the length alone, so that a vector does not depend on others."""
    return max(1, min(MAX_ROWS, FORWARD_TOKENS // length))


@lru_cache(maxsize=32)
def _files_digest(folder: str) -> str:
    """Digest of the files that decide an encoder's vectors, by relative path."""
    root = Path(folder)
    parts: list[Any] = []
    for path in sorted(root.rglob("*")):
        if path.suffix in _IDENTIFYING and path.name not in _NOT_IDENTIFYING and path.is_file():
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
            parts += [path.relative_to(root).as_posix(), content.digest()]
    return digest(*parts)
