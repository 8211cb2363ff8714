"""The as-of join against stock Feast's, on the same Spark and the same tables, both through Feast's own call.

Every timing is a process of its own, so that each has its own JVM and its own peak of memory. The answers
are summed, and the sums of both stores must agree, else the benchmark fails.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.asof_case import Case, write_case
from benchmarks.results import Row, keep, machine

COMMAND = "python -m benchmarks.asof"
STORES = {"ours": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore", "stock": "spark"}
NAME = "stock Feast 0.67"


def main() -> None:
    """The times, peaks and growth stand in results/performance.json."""
    given = _arguments()
    if given.one:
        from benchmarks.asof_case import measure

        print(json.dumps(measure(Case(**json.loads(given.one)), STORES[given.store])))
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        for per_key in given.per_key:
            case = _case(Path(scratch) / f"per-{per_key}", given, per_key=per_key, rows=given.rows)
            rows += _against_stock(case, given.timeout)
        rows.append(_growth(Path(scratch), given))
    for row in rows:
        print(f"{row.row}: {row.value} {row.unit}, {row.baseline_name} {row.baseline}, ratio {row.ratio}")
    if not given.quick:
        keep("performance", rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, and nothing is kept")
    parser.add_argument("--views", type=int, help="feature views (5; quick 2)")
    parser.add_argument("--rows", type=int, help="history rows a view (1,000,000; quick 50,000)")
    parser.add_argument("--entities", type=int, help="entity rows (50,000; quick 2,500)")
    parser.add_argument("--per-key", type=int, nargs="+", default=[10, 1000], help="history rows a key")
    parser.add_argument("--growth", type=int, default=10, help="how many times longer the long history is")
    parser.add_argument("--timeout", type=int, default=7200, help="seconds that stock may take at most")
    parser.add_argument("--scratch", help="where the tables are written; some 2 GB")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--store", choices=sorted(STORES), default="ours", help=argparse.SUPPRESS)
    given = parser.parse_args()
    small = {"views": (2, 5), "rows": (50_000, 1_000_000), "entities": (2_500, 50_000)}
    for name, (quick, full) in small.items():
        if getattr(given, name) is None:
            setattr(given, name, quick if given.quick else full)
    return given


def _case(folder: Path, given: argparse.Namespace, *, per_key: int, rows: int) -> Case:
    case = Case(
        folder=str(folder), views=given.views, rows=rows, entities=given.entities, keys=given.rows // per_key
    )
    write_case(case)
    return case


def _against_stock(case: Case, timeout: int) -> list[Row]:
    ours, stock = (_measured(case, store, timeout) for store in ("ours", "stock"))
    if ours["sums"] != stock["sums"]:
        raise SystemExit(f"the answers differ at {case}: ours {ours['sums']}, stock {stock['sums']}")
    size = f"{case.views} views x {case.rows:,} history rows x {case.entities:,} entity rows"
    what = f"{size}, {case.rows // case.keys:,} history rows a key"
    units = {"seconds": ("s", ""), "memory_mb": ("MB", ", peak executor memory (execution and storage)")}
    units["jvm_mb"] = ("MB", ", peak RSS of the JVM")
    return [
        _row(what + words, ours[key], unit, stock[key], NAME, case.entities)
        for key, (unit, words) in units.items()
    ]


def _growth(scratch: Path, given: argparse.Namespace) -> Row:
    """Seconds a history row of the long history against the short one: 1 is linear."""
    per_key = max(given.per_key)
    short = _case(scratch / "short", given, per_key=per_key, rows=given.rows)
    long = _case(scratch / "long", given, per_key=per_key, rows=given.rows * given.growth)
    fast, slow = (_measured(case, "ours", given.timeout)["seconds"] for case in (short, long))
    return _row(
        f"{given.growth} times the history ({long.rows:,} rows a view); 1.00x and above is linear",
        slow,
        "s",
        fast * given.growth,
        f"{given.growth} times the time of {short.rows:,}",
        given.entities,
    )


def _row(what: str, value: float, unit: str, baseline: float, name: str, n: int) -> Row:
    return Row(
        table="asof-join",
        row=what,
        value=round(value, 2),
        unit=unit,
        baseline=round(baseline, 2),
        baseline_name=name,
        ratio=round(baseline / value, 3),
        n=n,
        command=COMMAND,
        machine=machine(),
    )


def _measured(case: Case, store: str, timeout: int) -> dict[str, Any]:
    command: Sequence[str] = [
        sys.executable, "-m", "benchmarks.asof", "--store", store, "--one", json.dumps(case.__dict__)
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode:
        raise SystemExit(f"{store} failed at {case}:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{store}: {found['seconds']:.1f} s, {found['memory_mb']:.0f} MB at {case}", flush=True)
    return found


if __name__ == "__main__":
    main()
