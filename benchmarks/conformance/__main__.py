"""``python -m benchmarks.conformance``: every case against ours and stock; the table stands in results."""

import argparse
import tempfile
import warnings
from pathlib import Path

import benchmarks.conformance.cases
import benchmarks.conformance.types  # noqa: F401  (registers its cases)
from benchmarks.conformance.world import CASES, STORES, World
from benchmarks.results import Row, keep, machine
from qanchor_plugin.declare import Settings
from spark_jobs.session import get_session

COMMAND = "python -m benchmarks.conformance"
TITLE = "Right or wrong, case by case, on one Spark session"
NAMES = {"ours": "QAnchorOfflineStore", "stock": "Feast 0.67, spark"}


def main() -> None:
    """The verdicts stand in results/conformance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="cases whose group or name holds this; nothing is kept")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        spark = get_session(
            Settings(lake=f"{scratch}/lake", log_folder=f"{scratch}/logs", spark_master="local[2]")
        )
        for group, name in CASES:
            if only and only not in f"{group}: {name}":
                continue
            for kind in STORES:
                folder = Path(scratch) / kind / str(len(rows))
                verdict = verdict_of(World(spark, folder, kind), group, name)
                print(f"{kind:6} {group}: {name}: {verdict}", flush=True)
                rows.append(_row(f"{group}: {name}", NAMES[kind], verdict))
        spark.stop()
    if not only:
        keep("conformance", rows)


def verdict_of(world: World, group: str, name: str) -> str:
    """``right``, or in what way not."""
    try:
        CASES[group, name](world)
    except AssertionError as error:
        return f"wrong: {_short(error)}"
    except Exception as error:  # noqa: BLE001  (whatever a store raises is the finding)
        return f"fails: {type(error).__name__}"
    return "right"


def _short(error: AssertionError) -> str:
    text = " ".join(str(error).split()).replace("|", "\\|")
    return f"`{text[:90]}`"


def _row(name: str, column: str, verdict: str) -> Row:
    return Row(
        table="offline-conformance",
        row=name,
        column=column,
        title=TITLE,
        note=verdict,
        unit="",
        command=COMMAND,
        machine=machine(),
    )


if __name__ == "__main__":
    main()
