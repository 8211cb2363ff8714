"""What a day's refresh costs beside a full build: seconds, growth, and which files were rewritten.

Sources are made by Spark. The sequences are timed alone (no scenario is declared: texts and sequences, no
engine); with ``--engine-users`` a small store is refreshed with the demo engine as well.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.results import Row, keep, machine
from benchmarks.shop import END, declarations
from qanchor_plugin.declare import Declarations, Settings
from spark_jobs.engines import engine_on_driver
from spark_jobs.refresh import refresh
from spark_jobs.session import get_session

COMMAND = "python -m benchmarks.refresh"
ALLOWED_SHARE = 0.05
DAYS, SECONDS_PER_DAY = 364, 86_400
BRANDS, PRODUCTS, CATEGORIES = 12, 60, 30


def main() -> None:
    """The figures stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000_000, help="events of the full build")
    parser.add_argument("--users", type=int, default=100_000, help="users they are of")
    parser.add_argument(
        "--small", type=int, default=2_000_000, help="events of the smaller build, for growth"
    )
    parser.add_argument(
        "--engine-users", type=int, default=0, help="also with the demo engine, of so many users"
    )
    parser.add_argument("--memory", default="4g", help="Spark's driver memory")
    given = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        spark = get_session(_settings(Path(scratch), given.memory))
        _lived(spark, Path(scratch) / "warm-up", 10_000, 100, memory=given.memory)
        small_users = max(1, given.users * given.small // given.events)
        small = _lived(spark, Path(scratch) / "small", given.small, small_users, memory=given.memory)
        large = _lived(spark, Path(scratch) / "large", given.events, given.users, memory=given.memory)
        rows += _sequence_rows(given, small, large)
        if given.engine_users:
            rows += _engine_rows(spark, Path(scratch) / "engine", given.engine_users, given.memory)
    for row in rows:
        print(f"{row.row}: {row.value} {row.unit}")
    keep("performance", rows)


def _sequence_rows(given: argparse.Namespace, small: dict[str, float], large: dict[str, float]) -> list[Row]:
    times = given.events / given.small
    grown = large["full"] / small["full"]
    allowed = ALLOWED_SHARE * large["full"]
    size = f"{given.events:,} events of {given.users:,} users"
    figures = [
        ("sequences, full build", large["full"], "s", None, None),
        ("sequences, a day's 1% of events", large["day"], "s", allowed, "5% of the full build"),
        ("files of earlier days that the day rewrote", large["rewritten"], "files", None, None),
        ("sequences, 1% of that day corrected", large["late"], "s", large["full"], "full build"),
        ("sequences, 0.01% of all days corrected", large["old"], "s", large["full"], "full build"),
        (
            f"time of {times:g} times the events ({given.small:,} to {given.events:,})",
            grown,
            "times",
            times,
            "linear",
        ),
    ]
    return [
        Row(
            table="refresh",
            row=f"{name}, {size}" if number == 0 else name,
            value=round(value, 3),
            unit=unit,
            baseline=baseline,
            baseline_name=against,
            ratio=baseline / value if baseline else None,
            n=given.events,
            command=COMMAND,
            machine=machine(),
        )
        for number, (name, value, unit, baseline, against) in enumerate(figures)
    ]


def _lived(spark: SparkSession, folder: Path, events: int, users: int, *, memory: str) -> dict[str, float]:
    """Seconds of a full build, of a day's increment and of corrections; files of earlier days rewritten."""
    source = folder / "purchases"
    _write(spark, purchases(spark, events, users, first=0), source)
    settings = _settings(folder, memory)
    declared = _without_scenarios(source)
    full = _refresh_seconds(spark, settings, declared)
    before = _version(folder / "lake" / "behaviour_sequences")
    _write(spark, purchases(spark, max(1, events // 100), users, first=events, day=DAYS), source)
    day = _refresh_seconds(spark, settings, declared)
    rewritten = _removed(folder / "lake" / "behaviour_sequences", before)
    taken = {"full": full, "day": day, "rewritten": float(rewritten)}
    for name, chosen in (("late", f"number >= {events} AND number % 100 = 7"), ("old", "number % 10000 = 7")):
        spark.sql(f"UPDATE delta.`{source}` SET product = 'corrected' WHERE {chosen}")
        taken[name] = _refresh_seconds(spark, settings, declared)
    return taken


def purchases(
    spark: SparkSession, events: int, users: int, *, first: int, day: int | None = None
) -> DataFrame:
    """Purchases numbered from ``first``, each drawn by its number: in the year before END, or on one day."""

    def drawn(salt: int, below: int) -> Column:
        return F.pmod(F.xxhash64(F.col("number"), F.lit(salt)), F.lit(below))

    start = int(END.timestamp()) - (DAYS + 1) * SECONDS_PER_DAY
    seconds = (
        drawn(2, DAYS * SECONDS_PER_DAY) if day is None else day * SECONDS_PER_DAY + drawn(2, SECONDS_PER_DAY)
    )
    product = drawn(3, PRODUCTS)
    return (
        spark.range(first, first + events)
        .withColumnRenamed("id", "number")
        .select(
            "number",
            drawn(1, users).alias("user_id"),
            F.timestamp_seconds(F.lit(start) + seconds).alias("bought_at"),
            F.concat(F.lit("brand "), drawn(4, BRANDS)).alias("brand"),
            F.concat(F.lit("product "), product).alias("product"),
            F.concat(F.lit("category "), product % CATEGORIES).alias("category"),
            (drawn(5, 1000) / 100.0).alias("price"),
        )
    )


def _engine_rows(spark: SparkSession, folder: Path, users: int, memory: str) -> list[Row]:
    """The whole refresh of few users with the demo engine: full, a day of a tenth of them, a new scenario."""
    source, settings = folder / "purchases", _settings(folder, memory)
    _write(spark, purchases(spark, users * 200, users, first=0), source)
    digest = engine_on_driver("demo", "cpu").digest
    declared = declarations(source, engine="demo", engine_digest=digest, max_events=64)
    one_less = dict(list(declared.scenarios.items())[:-1])
    fewer = Declarations.of("bench", declared.profiles.values(), one_less.values())
    seconds = {"full build": _refresh_seconds(spark, settings, fewer)}
    _write(spark, purchases(spark, users * 2, max(1, users // 10), first=users * 200, day=DAYS), source)
    seconds["a day of a tenth of the users"] = _refresh_seconds(spark, settings, fewer)
    seconds["one more scenario"] = _refresh_seconds(spark, settings, declared)
    whole = seconds["full build"]
    return [
        Row(
            table="refresh-engine",
            row=f"{name}, demo engine, {users:,} users",
            value=round(taken, 3),
            unit="s",
            baseline=whole if name != "full build" else None,
            baseline_name="full build" if name != "full build" else None,
            ratio=whole / taken if name != "full build" else None,
            n=users,
            command=f"{COMMAND} --engine-users {users}",
            machine=machine(),
        )
        for name, taken in seconds.items()
    ]


def _refresh_seconds(spark: SparkSession, settings: Settings, declared: Declarations) -> float:
    started = time.perf_counter()
    refresh(spark, settings, declared, end=END)
    return time.perf_counter() - started


def _without_scenarios(source: Path) -> Declarations:
    declared = declarations(source, engine="demo", engine_digest="unused", max_events=64)
    return Declarations.of("bench", declared.profiles.values(), [])


def _write(spark: SparkSession, rows: DataFrame, path: Path) -> None:
    writer = rows.write.format("delta").mode("append").option("delta.enableChangeDataFeed", "true")
    writer.option("delta.enableDeletionVectors", "false").save(str(path))


def _settings(folder: Path, memory: str) -> Settings:
    return Settings(
        lake=str(folder / "lake"),
        clock=END,
        log_folder=str(folder / "logs"),
        spark_master="local[2]",
        spark_conf={"spark.driver.memory": memory},
        device="cpu",
    )


def _version(table: Path) -> int:
    return max(int(one.stem) for one in (table / "_delta_log").glob("*.json"))


def _removed(table: Path, after: int) -> int:
    """Files that versions after ``after`` took out of the table."""
    commits = [one for one in (table / "_delta_log").glob("*.json") if int(one.stem) > after]
    lines = [json.loads(line) for one in commits for line in one.read_text().splitlines()]
    return sum("remove" in line for line in lines)


if __name__ == "__main__":
    main()
