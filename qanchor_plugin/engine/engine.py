"""The engine's façade: users to prefixes, queries to suffixes, both to embeddings."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qanchor_plugin.engine.asked import check_asked, checked_rows
from qanchor_plugin.engine.backbone import CausalLMBackbone
from qanchor_plugin.engine.build_prefix import PrefixBuilder, Vectors
from qanchor_plugin.engine.config import PRESETS, EngineConfig
from qanchor_plugin.engine.embedding import embed_one_by_one, embed_packed
from qanchor_plugin.engine.engine_identity import EngineIdentity
from qanchor_plugin.engine.event_encoder import EventEncoder
from qanchor_plugin.engine.initial import initialise
from qanchor_plugin.engine.keep import prefill_kept
from qanchor_plugin.engine.kv import KeptKV
from qanchor_plugin.engine.load import (
    BACKBONE,
    CONFIG,
    ENCODER,
    SHIPPED,
    WEIGHTS,
    assembled,
    inside,
    load_language_model,
    placed,
    read_config,
    read_meaning_space,
    read_own_state,
    resolve_device,
    resolve_dtype,
    write_own_state,
)
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import Prefix, PreviewLine, layout, preview
from qanchor_plugin.engine.query import language_rows, meaning_rows, plain_ids, suffix_rows
from qanchor_plugin.engine.soft_prompt import SoftPrompt
from qanchor_plugin.engine.suffix import PreparedQuery
from qanchor_plugin.errors import EngineError
from qanchor_plugin.sequence.slice import UserSlice

Float32 = npt.NDArray[np.float32]


class QueryAnchorEngine(EngineIdentity):
    """Event encoder, hierarchy, backbone and projection, ready to serve.

    Attributes:
        config: what it is made of.
        modules: the torch parts; a training loop calls these.
        device: where they stand.
    """

    embedding_dim = 128

    def __init__(
        self, config: EngineConfig, modules: EngineModules, encoder: EventEncoder, tokenizer: Any = None
    ) -> None:
        self.config, self.modules, self._encoder, self._tokenizer = config, modules, encoder, tokenizer
        self.device = modules.projection.inner.weight.device
        modules.eval().requires_grad_(False)

    @classmethod
    def load(cls, name_or_folder: str, *, device: str = "auto") -> "QueryAnchorEngine":
        """A preset (``demo`` with the weights that the package ships, ``qwen2.5-0.5b`` with untrained ones
        around the hub's model) or a folder written by :meth:`save_pretrained`.

        Raises:
            EngineError: neither, or its files cannot be had; names the next step.
        """
        if name_or_folder in PRESETS:
            if name_or_folder not in SHIPPED:
                return cls.untrained(PRESETS[name_or_folder], device=device)
            return cls._of_weights(PRESETS[name_or_folder], SHIPPED[name_or_folder], device=device)
        if not Path(name_or_folder).is_dir():
            raise EngineError(
                f"engine {name_or_folder!r} is neither a preset ({', '.join(PRESETS)}) nor an existing "
                "folder. Name a preset, or a folder written by QueryAnchorEngine.save_pretrained."
            )
        return cls.from_pretrained(name_or_folder, device=device)

    @classmethod
    def untrained(cls, config: EngineConfig, *, device: str = "auto") -> "QueryAnchorEngine":
        """An engine of ``config`` whose own weights are drawn from its seed; the backbone of kind ``hf``
        and the sentence encoder are loaded from their sources."""
        on = resolve_device(device)
        model, tokenizer = None, None
        if config.backbone == "hf":
            model, tokenizer = load_language_model(config.backbone_source, resolve_dtype(config, on))
        return cls.from_parts(config, model=model, tokenizer=tokenizer, device=device)

    @classmethod
    def from_parts(
        cls,
        config: EngineConfig,
        *,
        model: Any = None,
        tokenizer: Any = None,
        encoder: EventEncoder | None = None,
        device: str = "auto",
    ) -> "QueryAnchorEngine":
        """An engine around a loaded transformers model and tokenizer (None for ``meaning``), its own
        weights drawn from the config's seed.

        Raises:
            EngineError: the model's width is not the config's.
        """
        on = resolve_device(device)
        modules = assembled(config, model, on)
        initialise(modules, config.seed)
        if config.backbone == "meaning":
            read_meaning_space(modules)
        encoder = encoder or EventEncoder(config.encoder_source, dim=config.encoder_dim, device=str(on))
        return cls(config, placed(modules, on), encoder, tokenizer)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str = "auto") -> "QueryAnchorEngine":
        """The engine that :meth:`save_pretrained` wrote, with the same bits.

        Raises:
            EngineError: a file is absent, truncated or of another architecture; names it.
        """
        folder = Path(folder)
        return cls._of_weights(read_config(folder), folder / WEIGHTS, device=device)

    @classmethod
    def _of_weights(cls, config: EngineConfig, weights: Path, *, device: str) -> "QueryAnchorEngine":
        """The engine of ``config`` with own weights from a file; ``./`` sources stand beside it."""
        on, folder = resolve_device(device), weights.parent
        model, tokenizer = None, None
        if config.backbone == "hf":
            source = inside(folder, config.backbone_source)
            model, tokenizer = load_language_model(source, resolve_dtype(config, on))
        modules = assembled(config, model, on)
        read_own_state(modules, weights)
        source = inside(folder, config.encoder_source)
        encoder = EventEncoder(source, dim=config.encoder_dim, device=str(on))
        return cls(config, placed(modules, on), encoder, tokenizer)

    def save_pretrained(self, folder: str | Path) -> None:
        """``folder`` holds the whole engine: config.json, engine.safetensors, and for ``hf`` the backbone
        with its tokenizer; a sentence encoder that a package carries is named, any other is copied."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config
        write_own_state(self.modules, folder / WEIGHTS)
        if config.backbone == "hf":
            self._language_model().model.save_pretrained(folder / BACKBONE)
            self._tokenizer.save_pretrained(folder / BACKBONE)
            config = config.with_(backbone_source=f"./{BACKBONE}")
        if not config.encoder_source.startswith("package:"):
            if self._encoder.folder.resolve() != (folder / ENCODER).resolve():
                shutil.copytree(self._encoder.folder, folder / ENCODER, dirs_exist_ok=True)
            config = config.with_(encoder_source=f"./{ENCODER}")
        (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")

    @property
    def encoder(self) -> EventEncoder:
        """The sentence encoder of event texts (and, without a language model, of queries)."""
        return self._encoder

    @property
    def tokenizer(self) -> Any:
        """The language model's tokenizer; None without one."""
        return self._tokenizer

    def template_rows(self, sources: tuple[str, ...]) -> torch.Tensor:
        """(T, W) float32 rows that stand before the soft tokens, with gradients where they are learnt."""
        if self.modules.start is not None:
            return self.modules.start[None].float()
        ids = self._tokenizer(self._template(sources), add_special_tokens=False)["input_ids"]
        rows = self._language_model().embed_ids(torch.tensor(ids, device=self.device, dtype=torch.int64))
        return rows.float()

    # --- texts and prefixes -----------------------------------------------------------------

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> npt.NDArray[np.float16]:
        """(N, encoder_dim) float16, L2-normalised: a text's vector is the same whatever the batch.

        Args:
            texts: event texts and group names.
            batch_size: texts tokenised at a time.
        """
        parts = [
            self._encoder.encode(texts[start : start + batch_size])
            for start in range(0, len(texts), batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.encoder_dim), np.float16)

    def build_prefixes(self, slices: Sequence[UserSlice], vectors: Vectors) -> list[Prefix]:
        """One prefix a slice, in order.

        Raises:
            MissingVectorsError: some texts have no vector yet.
        """
        with torch.inference_mode():
            builder = PrefixBuilder(self.modules, slices, vectors)
            made: dict[tuple[str, ...], Float32] = {}
            names = [tuple(one.name for one in user.modalities) for user in slices]
            for key in dict.fromkeys(names):
                made[key] = self.template_rows(key).cpu().numpy()
            return builder.build([made[key] for key in names])

    def preview_prefix(self, user_slice: UserSlice, text_of: Mapping[bytes, str]) -> list[PreviewLine]:
        """The prefix's tokens as lines for people."""
        slots = layout(user_slice, self.config)
        template = self._template(tuple(one.name for one in user_slice.modalities))
        return preview(user_slice, slots, template, text_of)

    def _language_model(self) -> CausalLMBackbone:
        backbone = self.modules.backbone
        if not isinstance(backbone, CausalLMBackbone):
            raise EngineError(f"engine {self.config.name!r} has no language model.")
        return backbone

    def _template(self, sources: tuple[str, ...]) -> str:
        return self.config.template.format(sources=", ".join(sources))

    # --- queries and embeddings -------------------------------------------------------------

    def count_query_tokens(self, query: str) -> int:
        """Tokens of the query itself, without template, soft prompt and ``<USER_EMB>``."""
        if self._tokenizer is None:
            return self._encoder.count_tokens(query.strip())
        return len(plain_ids(self._tokenizer, query.strip()))

    def prepare_query(self, query: str, soft_prompt: SoftPrompt | None = None) -> PreparedQuery:
        """The query ready to be asked of any user; made once a scenario.

        Raises:
            EngineError: it is empty or too long, or the soft prompt is of another engine.
        """
        text = query.strip()
        count = self.count_query_tokens(text)
        if not text:
            raise EngineError("the query is empty. Ask a question, such as 'Will this user buy again?'.")
        if count > self.max_query_tokens:
            raise EngineError(
                f"the query has {count} tokens, at most {self.max_query_tokens} are read: {text[:80]!r}... "
                "Shorten it."
            )
        prompt = None if soft_prompt is None else checked_rows(self, soft_prompt)
        with torch.inference_mode():
            if self.config.backbone == "meaning":
                rows, asked = meaning_rows(self.modules, self._encoder, text)
            else:
                before, after = self.config.query_template.split("{query}", 1)
                rows, asked = (
                    language_rows(self._language_model(), self._tokenizer, before, text, after),
                    None,
                )
            made = suffix_rows(self.modules, prompt, rows, asked).float().cpu().numpy()
        return PreparedQuery(
            query=text,
            rows=made,
            engine_digest=self.digest,
            soft_prompt_digest=None if soft_prompt is None else soft_prompt.digest,
        )

    def prefill(self, prefixes: Sequence[Prefix], *, scheme: str) -> list[KeptKV]:
        """Keys and values of each prefix, as ``bf16`` or ``int8`` stores them (EngineError: it cannot)."""
        check_asked(self, prefixes, (), [0] * len(prefixes))
        with torch.inference_mode():
            return prefill_kept(self.modules, prefixes, scheme=scheme, kv_digest=self.kv_digest)

    def embed(
        self,
        prefixes: Sequence[Prefix],
        queries: Sequence[PreparedQuery],
        cutoffs: Sequence[int],
        *,
        kept: Sequence[KeptKV | None] | None = None,
    ) -> Float32:
        """(P, Q, 128) float32, L2-normalised: every query of every prefix at its cutoff.

        Args:
            prefixes: from :meth:`build_prefixes` of this engine.
            queries: from :meth:`prepare_query` of this engine.
            cutoffs: one a prefix, microseconds since 1970 UTC.
            kept: from :meth:`prefill`, one or None a prefix; directions then agree to 0.9995.

        Raises:
            EngineError: another engine's prefixes, queries or keys, or too few cutoffs.
        """
        check_asked(self, prefixes, queries, cutoffs, kept)
        with torch.inference_mode():
            return embed_packed(self.modules, prefixes, queries, cutoffs, kept=kept)

    def embed_reference(
        self, prefixes: Sequence[Prefix], queries: Sequence[PreparedQuery], cutoffs: Sequence[int]
    ) -> Float32:
        """The same as :meth:`embed` by the slow obvious path; tests compare the two."""
        check_asked(self, prefixes, queries, cutoffs)
        with torch.inference_mode():
            return embed_one_by_one(self.modules, prefixes, queries, cutoffs)
