"""Queries and answers as rows for the suffix, read once and kept: what does not change while training.

Shape letters: T tokens, E encoder width, W hidden width, M meaning width, C = W + M.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from qanchor_plugin.engine.backbone import CausalLMBackbone
from qanchor_plugin.engine.engine import QueryAnchorEngine
from qanchor_plugin.engine.query import language_rows, plain_ids
from qanchor_plugin.errors import EngineError

MAX_TEXTS = 50_000
"""Texts kept; older ones are read again when they return."""


@dataclass(frozen=True, kw_only=True)
class TextState:
    """One text as the sentence encoder or tokenizer reads it.

    Attributes:
        ids: token ids, without special tokens.
        states_TE: contextual states of the encoder (``meaning``), else None.
        sentence_E: its sentence vector, else None.
    """

    ids: tuple[int, ...]
    states_TE: Tensor | None = None
    sentence_E: Tensor | None = None


class TextStates:
    """States of texts by text, the most recently used kept.

    Args:
        engine: whose encoder (``meaning``) or tokenizer (``hf``) reads them.
        max_texts: how many are kept.
    """

    def __init__(self, engine: QueryAnchorEngine, *, max_texts: int = MAX_TEXTS) -> None:
        self.engine, self.modules = engine, engine.modules
        self._kept: OrderedDict[str, TextState] = OrderedDict()
        self._max_texts = max_texts

    def __call__(self, text: str) -> TextState:
        """The state of ``text``."""
        known = self._kept.get(text)
        if known is None:
            known = self._kept[text] = self._read(text)
            if len(self._kept) > self._max_texts:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return known

    def query_rows(self, text: str) -> Tensor:
        """(T, C) with gradients: the query as the engine's own suffix has it, ``<USER_EMB>`` last."""
        return self._rows(text, with_template=True)

    def answer_rows(self, text: str) -> Tensor:
        """(T, C) with gradients: the text alone for the semantic tower, pooled at its last row: of
        ``meaning`` a ``<USER_EMB>``, of ``hf`` the last token (Query-as-Anchor 3.2.2)."""
        return self._rows(text, with_template=False)

    def _rows(self, text: str, *, with_template: bool) -> Tensor:
        state, modules = self(text), self.modules
        if state.states_TE is not None and state.sentence_E is not None:
            if modules.space is None or modules.suffix.query is None:
                raise EngineError("this engine has encoder states but no query adapter; load it again.")
            rows = torch.cat([modules.suffix.query(state.states_TE), modules.suffix.user_emb[None]])
            asked = modules.space.queries(state.sentence_E[None]).expand(len(rows), -1)
            return torch.cat([rows, asked], dim=1)
        backbone = modules.backbone
        if not isinstance(backbone, CausalLMBackbone):
            raise EngineError("this engine's backbone reads neither encoder states nor token ids.")
        if not with_template:
            return backbone.embed_ids(torch.tensor(state.ids, device=self.engine.device)).float()
        before, after = modules.config.query_template.split("{query}", 1)
        rows = language_rows(backbone, self.engine.tokenizer, before, text, after)
        return torch.cat([rows, modules.suffix.user_emb[None]])

    def _read(self, text: str) -> TextState:
        engine = self.engine
        if engine.tokenizer is not None:
            return TextState(ids=tuple(plain_ids(engine.tokenizer, text)))
        states, sentence = engine.encoder.encode_query(text)
        ids = engine.encoder.model.tokenizer(text, add_special_tokens=False)["input_ids"]
        device = engine.device
        return TextState(
            ids=tuple(ids),
            states_TE=torch.from_numpy(states).to(device),
            sentence_E=torch.from_numpy(sentence).to(device),
        )
