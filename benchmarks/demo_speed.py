"""The ``demo`` preset's speed: embeddings a second over a batch of users, packed and by the slow path."""

import argparse

import numpy as np

from benchmarks.devices import add_devices, chosen, rows_on
from benchmarks.peers.workload import seconds_of
from benchmarks.results import Row, as_run, keep, machine
from qanchor_plugin.engine import Prefix, PreparedQuery, QueryAnchorEngine

COMMAND = "python -m benchmarks.demo_speed"
PREFIXES, NUM_QUERIES, NUM_USERS = (64, 150, 300), (1, 10, 50), 8
QUESTION = "Will this household redeem a coupon for {} within the next two months?"


def main() -> None:
    """The rows stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one prefix, one repeat; nothing is kept")
    add_devices(parser)
    given = parser.parse_args()
    rows: list[Row] = []
    for device in chosen(given.devices):
        engine = QueryAnchorEngine.load("demo", device=device)
        queries = [engine.prepare_query(QUESTION.format(number)) for number in range(max(NUM_QUERIES))]
        made = [
            _row(engine, prefix, queries[:count], 1 if given.quick else given.repeats)
            for prefix in (PREFIXES[:1] if given.quick else PREFIXES)
            for count in NUM_QUERIES
        ]
        rows += rows_on(device, made)
    for row in rows:
        print(f"{row.row}: {row.value:.0f} {row.unit}, {row.ratio:.1f}x {row.baseline_name}")
    if not given.quick:
        keep("performance", rows)


def _row(engine: QueryAnchorEngine, length: int, queries: list[PreparedQuery], repeats: int) -> Row:
    """Embeddings a second, the fastest of the repeats."""
    prefixes = [_random_prefix(engine, length, seed) for seed in range(NUM_USERS)]
    cutoffs = [0] * len(prefixes)
    packed, slow = (
        [seconds_of(path, prefixes, queries, cutoffs) for _ in range(repeats + 1)][1:]
        for path in (engine.embed, engine.embed_reference)
    )
    made = len(prefixes) * len(queries)
    return Row(
        table="demo-speed",
        row=f"demo preset, prefix {length}, {len(queries)} queries a user",
        value=made / min(packed),
        unit="embeddings/s",
        baseline=made / min(slow),
        baseline_name="each query with the whole prefix",
        ratio=min(slow) / min(packed),
        n=repeats,
        command=as_run(COMMAND),
        machine=machine(),
    )


def _random_prefix(engine: QueryAnchorEngine, length: int, seed: int) -> Prefix:
    tokens = np.random.default_rng(seed).normal(size=(length, engine.token_width))
    return Prefix(
        user=b"%d" % seed,
        visible_digest="",
        as_of=0,
        num_events=length,
        tokens=(tokens * 0.05).astype(np.float16),
        positions=np.arange(length, dtype=np.int32),
    )


if __name__ == "__main__":
    main()
