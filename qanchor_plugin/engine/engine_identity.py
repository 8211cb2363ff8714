"""What an engine is, as digests and sizes: the identity of everything it makes."""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.engine.event_encoder import EventEncoder
from qanchor_plugin.engine.kv import KV_LAYOUT
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import LAYOUT
from qanchor_plugin.engine.weights import state_digest
from qanchor_plugin.identity import digest

_PREFIX_KEYS = (
    "backbone", "encoder_dim", "hidden", "token_dtype", "time", "epoch", "template", "modalities",
    "user_token", "modality_tokens", "group_tokens", "summaries", "meaning_dim", "rope_base",
)  # fmt: skip
_SUFFIX_KEYS = (
    "query_template",
    "embedding_dim",
    "projection_dim",
    "num_layers",
    "num_heads",
    "length_multiple",
)

_PROVENANCE = ("_name_or_path", "architectures", "transformers_version", "use_cache", "dtype")


class EngineIdentity:
    """The engine's digests and sizes, from its config, weights, tokenizer and event encoder."""

    config: EngineConfig
    modules: EngineModules
    _encoder: EventEncoder
    _tokenizer: Any

    @cached_property
    def digest(self) -> str:
        """Identity of everything that makes an embedding: weights, config, tokenizer, projection, dtype."""
        weights = state_digest(self.modules.state_dict())
        return digest("engine/1", self.prefix_digest, self._chosen(_SUFFIX_KEYS), weights)

    @cached_property
    def prefix_digest(self) -> str:
        """Identity of what shapes stored prefix tokens."""
        model = getattr(self.modules.backbone, "model", None)
        rope = None if model is None else getattr(model.config, "rope_parameters", None)
        tokenizer = self._tokenizer
        vocabulary = None if tokenizer is None else tokenizer.backend_tokenizer.to_str()
        return digest(
            "prefix/1",
            LAYOUT,
            self._chosen(_PREFIX_KEYS),
            self.encoder_id,
            None if vocabulary is None else digest(vocabulary),
            "int8" if self.config.dtype == "int8" else str(self.modules.compute_dtype),
            None if rope is None else dict(rope),
            state_digest(self.modules.prefix_state()),
        )

    @cached_property
    def kv_digest(self) -> str:
        """Identity of stored keys and values: the prefix's, the backbone's weights (an adapter's among
        them) and its architecture, which equal weights do not tell (heads, norms, attention)."""
        shape = [getattr(self.config, key) for key in ("num_layers", "num_heads", "length_multiple")]
        weights = state_digest(self.modules.backbone.state_dict())
        return digest("kv/2", self.prefix_digest, KV_LAYOUT, shape, self._architecture(), weights)

    def _architecture(self) -> dict[str, Any] | None:
        """The language model's own config without the names that only say where it came from."""
        model = getattr(self.modules.backbone, "model", None)
        if model is None:
            return None
        facts = json.loads(json.dumps(model.config.to_dict(), default=str))
        return {key: value for key, value in facts.items() if key not in _PROVENANCE}

    @cached_property
    def projection_digest(self) -> str:
        """Identity of the last step alone, from the state at ``<USER_EMB>`` to the embedding."""
        return digest("projection/1", state_digest(self.modules.projection.state_dict()))

    def note_digests(self) -> None:
        """The digests are known, whatever becomes of the weights."""
        _ = self.digest, self.kv_digest, self.projection_digest

    def forget_digests(self) -> None:
        """The digests are computed anew when next asked: weights were changed."""
        for name in ("digest", "prefix_digest", "kv_digest", "projection_digest"):
            self.__dict__.pop(name, None)

    @property
    def encoder_id(self) -> str:
        """Identity of the event encoder; vectors of another cannot be used."""
        return self._encoder.encoder_id

    @property
    def encoder_dim(self) -> int:
        """Width of event vectors."""
        return self.config.encoder_dim

    @property
    def token_width(self) -> int:
        """Numbers in a stored prefix token."""
        return self.config.token_width

    @property
    def token_dtype(self) -> str:
        """Type of stored prefix tokens; ``bfloat16`` is carried as uint16 bit patterns."""
        return self.config.token_dtype

    @property
    def suffix_knows_time(self) -> bool:
        """Whether an embedding changes with the cutoff's day alone."""
        return self.config.time == "day" or self.config.summaries

    @property
    def max_query_tokens(self) -> int:
        """Longer queries are refused."""
        return self.config.max_query_tokens

    def _chosen(self, keys: Sequence[str]) -> dict[str, Any]:
        return {key: value for key, value in self.config.to_dict().items() if key in keys}
