"""The ``int8`` option: how far its embeddings are from float32's, and what it saves of the time.

An engine of Qwen2.5-0.5B's shape with random weights, without key biases and under the stress of
benchmarks.kv (pretrained Qwen2.5 has a few large ones). Weights that were learnt may answer otherwise.
"""

import argparse

import numpy as np

from benchmarks.kv import set_biases
from benchmarks.peers.environments import FOLDER
from benchmarks.peers.run_qanchor import Engine
from benchmarks.peers.workload import QUERY_TOKENS, drawn, seconds_of
from benchmarks.qwen_shape import write_engine
from benchmarks.results import Row, as_run, keep, machine

COMMAND = "python -m benchmarks.int8"
BIASES = (0, 30)
NUM_QUERIES = 10


def main() -> None:
    """The rows stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefix", type=int, default=256)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    folder = str(write_engine(FOLDER / "engine"))
    users = drawn("user", given.users, given.prefix, 1)
    queries = drawn("query", NUM_QUERIES, QUERY_TOKENS, 1)
    answers, seconds = {}, {}
    for dtype in ("float32", "int8"):
        for bias in BIASES:
            engine = Engine(folder, dtype, "cpu")
            set_biases(engine.engine, bias)
            engine.digest = engine.engine.digest
            answers[dtype, bias] = engine.fresh(users, queries)
        seconds[dtype] = _times(engine, users, queries, given.repeats)
        print(f"{dtype}: measured", flush=True)
    rows = _cosines(answers, given.prefix) + _savings(seconds, given.prefix, given.repeats)
    for row in rows:
        print(f"{row.row}: {row.value:.5g} {row.unit}", "" if row.ratio is None else f"{row.ratio:.2f}x")
    keep("performance", rows)


def _times(engine: Engine, users: np.ndarray, queries: np.ndarray, repeats: int) -> dict[str, float]:
    """Seconds of a prefill and of queries on a cached user, the fastest of the repeats after a warm-up."""
    prefill = [seconds_of(engine.keep, users[0] + one) for one in range(repeats + 1)][1:]
    more = [seconds_of(engine.more, queries + one) for one in range(repeats + 1)][1:]
    return {"prefill": min(prefill), f"{len(queries)} more queries on a cached user": min(more)}


def _cosines(answers: dict[tuple[str, int], np.ndarray], prefix: int) -> list[Row]:
    rows = []
    for bias in BIASES:
        cosines = (answers["float32", bias] * answers["int8", bias]).sum(-1)
        for name, of in (("least", np.min), ("median", np.median)):
            rows.append(
                Row(
                    table="int8",
                    row=f"{name} cosine of int8 to float32, key biases {bias}, prefix {prefix}",
                    value=float(np.floor(of(cosines) * 1e5) / 1e5),
                    unit="",
                    n=cosines.size,
                    command=as_run(COMMAND),
                    machine=machine(),
                )
            )
    return rows


def _savings(seconds: dict[str, dict[str, float]], prefix: int, repeats: int) -> list[Row]:
    return [
        Row(
            table="int8",
            row=f"int8, prefix {prefix}: {name}",
            value=1000 * seconds["int8"][name],
            unit="ms",
            baseline=1000 * exact,
            baseline_name="float32",
            ratio=exact / seconds["int8"][name],
            n=repeats,
            command=as_run(COMMAND),
            machine=machine(),
        )
        for name, exact in seconds["float32"].items()
    ]


if __name__ == "__main__":
    main()
