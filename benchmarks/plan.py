"""Does the planner's prediction hold here? Constants are measured, a refresh is predicted, then run.

The run is the engine's share of a refresh: users of 200 random events to soft tokens, a prefill each, seven
scenarios each. The prediction knows the constants and the prefixes' mean length alone.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.qwen_shape import write_engine
from benchmarks.results import Row, keep, machine
from benchmarks.shop import QUESTIONS
from qanchor_plugin.backend.calibrate import LENGTHS, calibrate
from qanchor_plugin.backend.measured_user import CountedVectors, random_slices
from qanchor_plugin.cli.capacity.arithmetic import planned
from qanchor_plugin.cli.capacity.costs import measured_costs
from qanchor_plugin.cli.capacity.demand import Demand
from qanchor_plugin.engine import QueryAnchorEngine

COMMAND = "python -m benchmarks.plan"
USERS_PER_CALL = 8


def main() -> None:
    """Predicted and measured seconds of a user stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--engines", nargs="+", default=["demo", "qwen2.5-0.5b-shape"])
    parser.add_argument("--tokens", type=int, nargs="+", default=list(LENGTHS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = [_row(name, Path(scratch), given.users, given.tokens) for name in given.engines]
    keep("performance", rows)


def _row(name: str, scratch: Path, num_users: int, lengths: list[int]) -> Row:
    folder = name if name == "demo" else str(write_engine(scratch / name))
    engine = QueryAnchorEngine.load(folder)
    queries = [engine.prepare_query(question) for question in QUESTIONS]
    slices, vectors = random_slices(num_users), CountedVectors(engine.encoder_dim)
    built = engine.build_prefixes(slices, vectors)
    demand = Demand(
        users=num_users,
        events_per_day=0,
        scenarios=len(queries),
        dirty_share=1.0,
        tokens=round(sum(len(one.tokens) for one in built) / num_users),
        query_tokens=round(sum(one.num_tokens for one in queries) / len(queries)),
    )
    costs = calibrate(engine, lake=scratch / "lake", disk=None, lengths=lengths)
    told = planned(demand, measured_costs(costs, demand), kv_scheme=None)
    started = time.perf_counter()
    for at in range(0, num_users, USERS_PER_CALL):
        prefixes = engine.build_prefixes(slices[at : at + USERS_PER_CALL], vectors)
        engine.embed(prefixes, queries, [0] * len(prefixes))
    measured = (time.perf_counter() - started) / num_users
    predicted = told["per_user"]["refresh_seconds"]
    print(f"{name}: planned {predicted:.4f} s a user, measured {measured:.4f} s", flush=True)
    return Row(
        table="plan",
        row=f"one user's refresh, {len(queries)} scenarios, {demand.tokens} tokens ({name}, {costs.dtype})",
        value=measured,
        unit="s",
        baseline=predicted,
        baseline_name="planned",
        ratio=predicted / measured,
        n=num_users,
        command=COMMAND,
        machine=machine(),
    )


if __name__ == "__main__":
    main()
