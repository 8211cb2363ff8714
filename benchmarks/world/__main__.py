"""``python -m benchmarks.world``: the synthetic world from nothing to its figures.

With ``--only-data`` it stops after the raw tables: a load generator for any other benchmark, of any size,
streamed in chunks of 1,000 users (memory does not grow), the same bytes for a seed.

    python -m benchmarks.world --parts base,margin
    python -m benchmarks.world --opaque 0 --users 5000 --parts base --output build/plain
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import results
from benchmarks.world.data import make_data
from benchmarks.world.declarations import Place
from benchmarks.world.figures import seconds_row
from qanchor_plugin.evaluation.synthetic import World

DEFAULT_OUTPUT = results.ROOT / "build" / "world"
PICTURES = results.ROOT / "docs" / "pictures"


def main(arguments: list[str] | None = None) -> int:
    """Figures stand in results/world.json, pictures in docs/pictures; 2 for an unknown part."""
    given = _parser().parse_args(arguments)
    place = Place(
        folder=given.output.resolve(),
        world=World(num_users=given.users, seed=given.world_seed, num_opaque=given.opaque),
    )
    say = _sayer()
    say(f"data: {place.world.num_users} users")
    rows = make_data(place)
    if given.only_data:
        print(json.dumps({"raw": str(place.raw), "judging": str(place.judging), "rows": rows}, indent=1))
        return 0
    made = _prepared(place, say)
    from benchmarks.world.parts import PARTS, Run, timed

    asked = given.parts.split(",")
    if unknown := sorted(set(asked) - set(PARTS)):
        print(f"--parts {unknown} are not known; accepted are {list(PARTS)}.", file=sys.stderr)
        return 2
    run = Run(
        place=place,
        num_steps=given.steps,
        seeds=range(given.seeds),
        num_subset=given.subset,
        pictures=PICTURES if given.opaque else place.folder,
        say=say,
    )
    kind = "" if given.opaque else "plain-"
    for name in asked:
        made += timed(run, name)
        results.keep("world", [replace(row, table=f"{kind}{row.table}") for row in made])
    print(json.dumps([asdict(row) for row in made], indent=1) if given.json else _table(made))
    return 0


def _prepared(place: Place, say: Callable[[str], None]) -> list[results.Row]:
    from benchmarks.world.lake import make_lake
    from benchmarks.world.training import make_pairs
    from qanchor_plugin.schemas import PAIRS_TABLE

    rows = []
    started = time.perf_counter()
    say("lake: sequences, texts and vectors")
    make_lake(place)
    rows.append(seconds_row("world-seconds", "lake", time.perf_counter() - started))
    if not (place.lake / PAIRS_TABLE).is_dir():
        started = time.perf_counter()
        say("pairs")
        say(f"{make_pairs(place)} pairs")
        rows.append(seconds_row("world-seconds", "pairs", time.perf_counter() - started))
    return rows


def _table(rows: list[results.Row]) -> str:
    tables = dict.fromkeys(row.table for row in rows)
    return "\n\n".join(f"{name}\n{results.table_of([r for r in rows if r.table == name])}" for name in tables)


def _sayer() -> Callable[[str], None]:
    started = time.perf_counter()
    return lambda line: print(f"[{time.perf_counter() - started:6.0f} s] {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.world",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder of the world (kept)")
    parser.add_argument("--world-seed", type=int, default=0, help="another seed is another population")
    parser.add_argument(
        "--opaque", type=int, default=5, help="things of ten whose name says nothing, as a brand's does"
    )
    parser.add_argument("--only-data", action="store_true", help="write the raw tables and stop")
    parser.add_argument("--parts", default="base,ablations,scaling,margin,tuned")
    parser.add_argument("--steps", type=int, default=160, help="of every training")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of the base")
    parser.add_argument("--subset", type=int, default=6_500, help="users judged in ablations and curves")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
