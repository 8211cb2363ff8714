"""What an exact training set over the example store's real data costs, and how much of it is the engine.

Run ``make demo`` first: the lake is read and nothing in it is written. Four retrievals: one row for each
(household, instant) and one scenario; five rows that see the same; every scenario of the store; and every
scenario at more instants, where starting and planning weigh what they weigh in a long retrieval. The wall
time is the whole call's: planning, estimating, chunks, and the table at the end.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.results import ROOT, Row, keep, machine

COMMAND = "python -m benchmarks.training_set"
FIRST, SPAN = datetime(2017, 3, 1, 12, tzinfo=UTC), timedelta(days=305)
BAR = 90.0


def main() -> None:
    """The figures stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", type=Path, default=ROOT, help="a feature repo with a filled lake")
    parser.add_argument("--households", type=int, default=2000, help="users of the set")
    parser.add_argument("--instants", type=int, default=5, help="instants of each, over ten months")
    parser.add_argument("--long", type=int, default=48, help="instants of each in the long retrieval")
    parser.add_argument("--quick", action="store_true", help="40 households, and nothing is kept")
    given = parser.parse_args()
    households, instants = (40, 2) if given.quick else (given.households, given.instants)
    rows = _rows(given.repo, households, instants)
    scenarios = _scenarios(given.repo)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        _retrieved(given.repo, rows.head(20), scenarios, base / "warm-up")
        once = _retrieved(given.repo, rows, scenarios[:1], base / "once")
        five = _retrieved(given.repo, _repeated(rows, 5), scenarios[:1], base / "five")
        every = _retrieved(given.repo, rows, scenarios, base / "every")
        more = _rows(given.repo, households, instants if given.quick else given.long)
        long = _retrieved(given.repo, more, scenarios, base / "long")
    figures = [*_figures(once, five, every, len(scenarios)), _share(every), _share(long)]
    for row in figures:
        print(f"{row.row}: {row.value:.4g} {row.unit} (against {row.baseline})")
    if not given.quick:
        keep("performance", figures)


def _figures(once: dict, five: dict, every: dict, num_scenarios: int) -> list[Row]:
    return [
        _row(
            "one distinct (user, visible events), every scenario, wall",
            1000 * every["seconds"] / every["prefills"],
            "ms",
            None,
            None,
            every,
        ),
        _row("5 rows that see the same", five["seconds"], "s", once["seconds"], "1 row of each", five),
        _row(f"{num_scenarios} scenarios", every["seconds"], "s", once["seconds"], "1 scenario", every),
        _row(
            "prefills of 5 rows that see the same",
            five["prefills"],
            "",
            once["prefills"],
            "1 row of each",
            five,
        ),
    ]


def _share(told: dict) -> Row:
    share = 100 * told["engine_seconds"] / (told["slots"] * told["seconds"])
    size = f"{told['prefills']:,} prefills in {told['seconds']:.0f} s"
    what = f"share of the wall time inside the engine, every scenario, {size}"
    return _row(what, share, "%", BAR, "asked", told)


def _row(
    what: str, value: float, unit: str, baseline: float | None, name: str | None, told: dict[str, Any]
) -> Row:
    ratio = None
    if baseline is not None:
        ratio = value / baseline if unit == "%" else baseline / value
    return Row(
        table="training-set",
        row=what,
        value=value,
        unit=unit,
        baseline=baseline,
        baseline_name=name,
        ratio=ratio,
        n=told["rows"],
        command=COMMAND,
        machine=machine(),
    )


def _rows(repo: Path, households: int, instants: int) -> pd.DataFrame:
    """Households that the lake knows, at instants evenly over ten months."""
    from qanchor_plugin import schemas as S
    from qanchor_plugin.cli.repo import settings_of
    from qanchor_plugin.prefix_store import LakeTables

    tables = LakeTables(settings_of(repo).lake)
    keys = set(tables.read("behaviour_sequences", columns=[S.USER_KEY])[S.USER_KEY].to_pylist())
    users = [json.loads(one) for one in sorted(keys)][:households]
    return pd.DataFrame(
        [{**user, "event_timestamp": FIRST + n * SPAN / instants} for user in users for n in range(instants)]
    )


def _repeated(rows: pd.DataFrame, times: int) -> pd.DataFrame:
    """Every row and ``times`` - 1 more, seconds later: they see the same events."""
    later = [
        rows.assign(event_timestamp=rows["event_timestamp"] + timedelta(seconds=n)) for n in range(times)
    ]
    return pd.concat(later, ignore_index=True)


def _scenarios(repo: Path) -> list[str]:
    from feast import FeatureStore

    from qanchor_plugin.feast_ext.declarations import declarations_from_registry

    store = FeatureStore(repo_path=str(repo))
    return sorted(declarations_from_registry(store.registry, store.project).scenarios)


def _retrieved(repo: Path, rows: pd.DataFrame, scenarios: list[str], folder: Path) -> dict[str, Any]:
    """The report, with how many tasks ran at once."""
    from feast import FeatureStore
    from pyspark.sql import SparkSession

    from qanchor_plugin.feast_ext.training_set import Request, build_training_set

    folder.mkdir(parents=True)
    rows.to_parquet(folder / "rows.parquet")
    request = Request(
        entities=str(folder / "rows.parquet"),
        features=tuple(f"{name}:embedding" for name in scenarios),
        output=folder / "out",
        checkpoint=folder / "work",
    )
    began = time.perf_counter()
    report = build_training_set(FeatureStore(repo_path=str(repo)), request)
    wall = time.perf_counter() - began
    spark = SparkSession.getActiveSession()
    assert spark is not None
    cpus = int(spark.sparkContext.getConf().get("spark.task.cpus", "1") or 1)
    return report | {"seconds": wall, "slots": max(1, spark.sparkContext.defaultParallelism // cpus)}


if __name__ == "__main__":
    main()
