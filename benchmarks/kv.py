"""What storing keys and values saves, and what eight bits cost: bytes, loads, and directions under stress.

Speed is of an engine of Qwen2.5-0.5B's shape in bfloat16; directions are of the same shape in float32,
without key biases and under a stress of eight channels a layer at +30 or -30 (pretrained Qwen2.5 has a few
such channels), against the full re-encode of prefix and query together.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import Row, keep, machine
from qanchor_plugin.backend.calibrate import calibrate
from qanchor_plugin.backend.measured_user import random_prefix
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO, QWEN
from qanchor_plugin.engine.kv import SCHEMES
from qanchor_plugin.engine.random_shape import QWEN_05B_SHAPE, random_language_engine

COMMAND = "python -m benchmarks.kv"


def main() -> None:
    """Bytes, seconds and cosines stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=700)
    parser.add_argument("--stress-tokens", type=int, default=256)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--layers", type=int, default=24)
    given = parser.parse_args()
    shape = {**QWEN_05B_SHAPE, "num_hidden_layers": given.layers, "vocab_size": 300}
    rows = [*_stress(shape, given.stress_tokens, given.queries), *_speed(shape, given.tokens)]
    for row in rows:
        print(row.row, row.value, row.unit, "against", row.baseline, flush=True)
    keep("performance", rows)


def _engine(shape: dict[str, Any], dtype: str) -> QueryAnchorEngine:
    config = QWEN.with_(dtype=dtype, encoder_source=DEMO.encoder_source, encoder_dim=DEMO.encoder_dim)
    return random_language_engine(shape, config=config)


def _stress(shape: dict[str, Any], length: int, num_queries: int) -> list[Row]:
    engine = _engine(shape, "float32")
    prefix = random_prefix(engine, length)
    rows = []
    for bias in (0, 30):
        set_biases(engine, bias)
        queries = [engine.prepare_query(f"Will they buy {number}?") for number in range(num_queries)]
        truth = engine.embed_reference([prefix], queries, [0])
        for scheme in SCHEMES:
            kept = engine.prefill([prefix], scheme=scheme)
            cosine = (engine.embed([prefix], queries, [0], kept=kept) * truth).sum(-1).min()
            rows.append(
                Row(
                    table="kv",
                    row=f"least cosine of {scheme} to float32, key biases {bias}, {length} tokens",
                    value=float(np.floor(cosine * 1e5) / 1e5),
                    unit="",
                    baseline=0.9995,
                    baseline_name="the bar",
                    n=num_queries,
                    command=COMMAND,
                    machine=machine(),
                )
            )
    return rows


def set_biases(engine: QueryAnchorEngine, bias: float) -> None:
    """Eight key channels of each layer have a bias of plus or minus ``bias``, all others none."""
    drawn = torch.Generator().manual_seed(5)
    model: Any = engine.modules.backbone
    for layer in model.model.base_model.layers:
        values = torch.zeros(layer.self_attn.k_proj.bias.shape)
        places = torch.randperm(len(values), generator=drawn)[:8]
        values[places] = bias * torch.sign(torch.randn(8, generator=drawn))
        layer.self_attn.k_proj.bias.data = values.to(layer.self_attn.k_proj.bias)
    engine.forget_digests()


def _speed(shape: dict[str, Any], length: int) -> list[Row]:
    engine = _engine(shape, "bfloat16")
    with tempfile.TemporaryDirectory() as scratch:
        costs = calibrate(engine, lake=Path(scratch), disk=None, lengths=(length // 2, length))
    rows = []
    for scheme in SCHEMES:
        size = costs.stored_bytes(scheme, length)
        plain = costs.stored_bytes("bf16", length)
        rows.append(_against(f"{scheme}, a user of {length} tokens", size / 1e6, "MB", plain / 1e6, "bf16"))
        for tier in costs.tiers:
            rows.append(
                _against(
                    f"{scheme} from {tier}, loaded, checked and decoded",
                    1000 * costs.load_seconds(tier, scheme, length),
                    "ms",
                    1000 * costs.prefill_seconds(length),
                    "prefill",
                )
            )
    return rows


def _against(row: str, value: float, unit: str, baseline: float, name: str) -> Row:
    return Row(
        table="kv",
        row=row,
        value=value,
        unit=unit,
        baseline=baseline,
        baseline_name=name,
        ratio=baseline / value,
        command=COMMAND,
        machine=machine(),
    )


if __name__ == "__main__":
    main()
