"""A query's text as rows for the suffix; what stands in it is text, never an instruction.

Shape letters: T tokens, P soft tokens, W hidden width, M meaning width, C = W + M, E encoder width.
"""

from typing import Any

import torch
from torch import Tensor

from qanchor_plugin.engine.backbone import CausalLMBackbone
from qanchor_plugin.engine.event_encoder import EventEncoder
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.errors import EngineError


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of ``text`` in which no added or special token occurs.

    Where the text spells one, such as ``<|im_end|>``, it is cut after the spelling's first character, so
    that the tokenizer reads plain characters.
    """
    spelled = sorted((one for one in tokenizer.get_added_vocab() if one), key=len, reverse=True)
    pieces, rest = [], text
    while True:
        found = [(at, one) for one in spelled if len(one) > 1 and (at := rest.find(one)) >= 0]
        if not found:
            break
        cut = min(found)[0] + 1
        pieces.append(rest[:cut])
        rest = rest[cut:]
    pieces.append(rest)
    ids: list[int] = []
    for piece in pieces:
        ids += tokenizer(piece, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def language_rows(backbone: CausalLMBackbone, tokenizer: Any, before: str, query: str, after: str) -> Tensor:
    """(T, W) input embeddings of the query in its template, without ``<USER_EMB>``."""
    ids = tokenizer(before, add_special_tokens=False)["input_ids"] if before else []
    ids = ids + plain_ids(tokenizer, query)
    ids = ids + (tokenizer(after, add_special_tokens=False)["input_ids"] if after else [])
    device = backbone.model.get_input_embeddings().weight.device
    return backbone.embed_ids(torch.tensor(ids, device=device)).float()


def meaning_rows(modules: EngineModules, encoder: EventEncoder, query: str) -> tuple[Tensor, Tensor]:
    """(T, W) rows of the encoder's contextual token states, and what is asked (M,)."""
    states, sentence = encoder.encode_query(query)
    device = modules.suffix.user_emb.device
    if modules.suffix.query is None or modules.space is None:
        raise EngineError("this engine's backbone reads query tokens itself; it has no query adapter.")
    rows = modules.suffix.query(torch.from_numpy(states).to(device))
    asked = modules.space.queries(torch.from_numpy(sentence).to(device)[None])[0]
    return rows, asked


def suffix_rows(
    modules: EngineModules, prompt_PC: Tensor | None, rows_TW: Tensor, asked_M: Tensor | None
) -> Tensor:
    """(T + P, C), or (T + 1, C) without a prompt: the query, then :func:`answering_rows`.

    The query and ``<USER_EMB>`` ask ``asked_M``; a soft token asks for what it was tuned to. The query comes
    first, so its keys and values depend on no soft prompt.
    """
    end: Tensor = modules.suffix.user_emb
    if asked_M is not None:
        rows_TW = torch.cat([rows_TW, asked_M.expand(len(rows_TW), -1)], dim=1)
        end = torch.cat([end, asked_M])
    return torch.cat([rows_TW, answering_rows(prompt_PC, end)])


def answering_rows(prompt_PC: Tensor | None, user_emb_C: Tensor) -> Tensor:
    """(P, C): soft tokens, then ``<USER_EMB>``, to which the prompt's last row is added; (1, C) without."""
    if prompt_PC is None:
        return user_emb_C[None]
    prompt_PC = prompt_PC.to(user_emb_C.device)
    return torch.cat([prompt_PC[:-1], (user_emb_C + prompt_PC[-1])[None]])
