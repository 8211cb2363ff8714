"""Engines around a language model of random weights: for benchmarks and tests, without a hub."""

from collections.abc import Mapping
from typing import Any

import torch

from qanchor_plugin.engine.config import QWEN, EngineConfig
from qanchor_plugin.engine.engine import QueryAnchorEngine
from qanchor_plugin.engine.event_encoder import EventEncoder

QWEN_05B_SHAPE: Mapping[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": True,
}
"""Qwen2.5-0.5B's architecture (494M parameters)."""


def byte_tokenizer(special_tokens: tuple[str, ...] = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")) -> Any:
    """A transformers tokenizer whose tokens are the 256 bytes, and the given special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={one: row for row, one in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special_tokens))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=special_tokens[0])


def random_language_engine(
    shape: Mapping[str, Any] = QWEN_05B_SHAPE,
    *,
    config: EngineConfig = QWEN,
    encoder: EventEncoder | None = None,
    device: str = "auto",
    seed: int = 0,
) -> QueryAnchorEngine:
    """The paper's engine with a Qwen2 of random weights and a byte tokenizer.

    Args:
        shape: arguments of ``Qwen2Config``; the config's width follows its ``hidden_size``.
        config: the engine's config; give ``encoder_source`` and ``encoder_dim`` of an encoder at hand.
        encoder: an encoder already made, else from the config's source.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of the random weights; torch's own generator is left as it was.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = config.with_(hidden=shape["hidden_size"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    return QueryAnchorEngine.from_parts(
        config, model=model.eval(), tokenizer=byte_tokenizer(), encoder=encoder, device=device
    )
