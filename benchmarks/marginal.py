"""What one more scenario costs: the slope of time from 10 to 50 queries, and its share of a refresh.

Queries share no token, as the FLOP ratio assumes; the slope of such as begin alike stands beside it.

The slope is held against the FLOP ratio of a suffix to the prefill: 1 would mean that a suffix's token costs
what a prefix's does. A refresh of a user is its prefill and ten scenarios.
"""

import argparse
from statistics import median

import numpy as np

from benchmarks.devices import add_devices, chosen, dtypes_on, rows_on
from benchmarks.peers.environments import FOLDER
from benchmarks.peers.run_qanchor import Engine
from benchmarks.peers.workload import ALIKE_TOKENS, QUERY_TOKENS, drawn, seconds_of
from benchmarks.qwen_shape import write_engine
from benchmarks.results import Row, as_run, keep, machine
from qanchor_plugin.engine.random_shape import QWEN_05B_SHAPE

COMMAND = "python -m benchmarks.marginal"
NUM_QUERIES = (10, 20, 30, 40, 50)
SCENARIOS = 10
BAR, GOAL = 1.25, 1.15


def main() -> None:
    """The slopes stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefixes", type=int, nargs="+", default=[256, 700, 1050])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32", "int8"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="prefix 256 in float32, two repeats; nothing is kept"
    )
    add_devices(parser)
    given = parser.parse_args()
    if given.quick:
        given.prefixes, given.dtypes, given.repeats = [256], ["float32"], 2
    folder = write_engine(FOLDER / "engine")
    rows = []
    for device in chosen(given.devices):
        for dtype in dtypes_on(device, given.dtypes):
            engine = Engine(str(folder), dtype, device)
            for prefix in given.prefixes:
                alike = _measured(engine, prefix, given.repeats, alike=ALIKE_TOKENS)[1]
                made = _rows(dtype, prefix, *_measured(engine, prefix, given.repeats), alike)
                rows += rows_on(device, made)
    for row in rows:
        print(f"{row.row}: {row.value:.4g} {row.unit}", "" if row.ratio is None else f"({row.baseline_name})")
    if not given.quick:
        keep("performance", rows)


def suffix_to_prefill(prefix: int, tokens: int) -> float:
    """FLOPs of one query's suffix over those of the prefill, both computed whole."""
    return flops(tokens, prefix) / flops(prefix, 0)


def flops(tokens: int, before: int) -> float:
    """FLOPs of ``tokens`` causal tokens after ``before`` others: linear layers, then attention."""
    width, layers = QWEN_05B_SHAPE["hidden_size"], QWEN_05B_SHAPE["num_hidden_layers"]
    heads, keys = QWEN_05B_SHAPE["num_attention_heads"], QWEN_05B_SHAPE["num_key_value_heads"]
    linear = 2 * width * width * (1 + keys / heads) + 3 * width * QWEN_05B_SHAPE["intermediate_size"]
    seen = tokens * before + tokens * (tokens + 1) / 2
    return layers * (2 * linear * tokens + 4 * width * seen)


def _measured(engine: Engine, prefix: int, repeats: int, *, alike: int = 0) -> tuple[float, float, float]:
    """Seconds of a prefill, of one more query (the slope), and the slope's spread over the repeats.

    Queries begin with the same ``alike`` tokens.

    The numbers of queries take turns within a repeat, so that a busy spell falls on all of them.
    """
    users = drawn("user", repeats, prefix, prefix)
    prefills, slopes, fastest = [], [], np.full(len(NUM_QUERIES), np.inf)
    engine.keep(users[0])
    engine.more(drawn("query", NUM_QUERIES[-1], QUERY_TOKENS, 0))
    for number, user in enumerate(users):
        prefills.append(seconds_of(engine.keep, user))
        asked = [drawn("query", count, QUERY_TOKENS, number + 1, alike=alike) for count in NUM_QUERIES]
        took = np.array([seconds_of(engine.more, one) for one in asked])
        slopes.append(float(np.polyfit(NUM_QUERIES, took, 1)[0]))
        fastest = np.minimum(fastest, took)
    slope = float(np.polyfit(NUM_QUERIES, fastest, 1)[0])
    return min(prefills), slope, median(abs(one - slope) for one in slopes)


def _rows(dtype: str, prefix: int, prefill: float, slope: float, spread: float, alike: float) -> list[Row]:
    ratio = suffix_to_prefill(prefix, QUERY_TOKENS + 1)
    refresh = prefill + SCENARIOS * slope
    figures = [
        ("one more query", 1000 * slope, "ms", None),
        (f"one more of queries with {ALIKE_TOKENS} of {QUERY_TOKENS} tokens alike", 1000 * alike, "ms", None),
        ("one more query over the prefill, against the FLOP ratio", slope / prefill / ratio, "x", BAR),
        (f"one more scenario's share of a refresh with {SCENARIOS}", 100 * slope / refresh, "%", None),
        (f"prefill's share of a refresh with {SCENARIOS}", 100 * prefill / refresh, "%", None),
    ]
    return [
        Row(
            table="marginal",
            row=f"{dtype}, prefix {prefix}: {name}",
            value=value,
            unit=unit,
            baseline=bar,
            baseline_name=None if bar is None else f"at most; the goal is {GOAL}",
            ratio=None if bar is None else bar / value,
            spread=1000 * spread if unit == "ms" else None,
            command=as_run(COMMAND),
            machine=machine(),
        )
        for name, value, unit, bar in figures
    ]


if __name__ == "__main__":
    main()
