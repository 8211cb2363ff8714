"""What one more user costs, and how much of it is the model: slopes over the number of users.

The whole refresh (Spark sequences, texts, vectors, prefixes, seven scenarios, Delta) is timed at several
numbers of users, and the engine alone, called directly on the same users; the ratio of the two slopes is
the share of model time.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

from benchmarks.qwen_shape import write_engine
from benchmarks.results import Row, keep, machine
from benchmarks.shop import END, QUESTIONS, declarations, write_purchases
from qanchor_plugin.declare import Settings
from qanchor_plugin.engine import QueryAnchorEngine, VectorSnapshot
from qanchor_plugin.sequence import fold_users, slice_at
from spark_jobs.refresh import refresh
from spark_jobs.session import get_session

COMMAND = "python -m benchmarks.user_cost"
EVENTS, MAX_EVENTS = 300, 250


def main() -> None:
    """The slopes stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[16, 48, 80], help="numbers of users to time")
    users = parser.parse_args().users
    with tempfile.TemporaryDirectory() as scratch:
        engine_folder = write_engine(Path(scratch) / "engine")
        _refresh_seconds(Path(scratch) / "warm-up", engine_folder, 2)
        whole = [_refresh_seconds(Path(scratch) / str(n), engine_folder, n) for n in users]
        model = [_model_seconds(Path(scratch) / str(n), engine_folder, n) for n in users]
    whole_slope, model_slope = (float(np.polyfit(users, seconds, 1)[0]) for seconds in (whole, model))
    print(f"users {users}: refresh {whole} s, engine alone {model} s")
    keep(
        "performance",
        [
            Row(
                table="user-cost",
                row="one more user, whole refresh (slope, Qwen2.5-0.5B shape, 7 scenarios)",
                value=whole_slope,
                unit="s",
                n=len(users),
                command=COMMAND,
                machine=machine(),
            ),
            Row(
                table="user-cost",
                row="of that, model time (engine called directly)",
                value=100 * model_slope / whole_slope,
                unit="%",
                n=len(users),
                command=COMMAND,
                machine=machine(),
            ),
        ],
    )


def _settings(folder: Path) -> Settings:
    return Settings(
        lake=str(folder / "lake"),
        clock=END,
        log_folder=str(folder / "logs"),
        spark_master="local[2]",
        spark_conf={"spark.task.cpus": "2"},
        device="cpu",
        users_per_batch=8,
    )


def _refresh_seconds(folder: Path, engine_folder: Path, num_users: int) -> float:
    """Seconds of a full refresh over ``num_users`` users, session start not counted."""
    write_purchases(folder / "purchases", num_users=num_users, events_per_user=EVENTS)
    settings = _settings(folder)
    digest = QueryAnchorEngine.load(str(engine_folder), device="cpu").digest
    declared = declarations(
        folder / "purchases", engine=str(engine_folder), engine_digest=digest, max_events=MAX_EVENTS
    )
    spark = get_session(settings)
    started = time.perf_counter()
    refresh(spark, settings, declared, end=END)
    return time.perf_counter() - started


def _model_seconds(folder: Path, engine_folder: Path, num_users: int) -> float:
    """Seconds of the engine alone on the same users: prefixes and all embeddings."""
    engine = QueryAnchorEngine.load(str(engine_folder), device="cpu")
    declared = declarations(
        folder / "purchases", engine=str(engine_folder), engine_digest=engine.digest, max_events=MAX_EVENTS
    )
    profile = declared.profiles["shoppers"]
    end = round(END.timestamp() * 1_000_000)
    stored = DeltaTable(folder / "lake" / "behaviour_sequences").to_pyarrow_table()
    slices = [slice_at(one, profile, end) for one in fold_users(stored, None, profile)]
    vectors = VectorSnapshot.open(folder / "lake" / "_vectors" / engine.encoder_id)
    queries = [engine.prepare_query(question) for question in QUESTIONS]
    started = time.perf_counter()
    for at in range(0, num_users, 8):
        prefixes = engine.build_prefixes(slices[at : at + 8], vectors)
        engine.embed(prefixes, queries, [end] * len(prefixes))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
