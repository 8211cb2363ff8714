"""A small store: five users, eight days, three modalities, two scenarios, on the demo engine."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from qanchor_plugin.declare import Declarations, Profile, Scenario, Settings
from spark_jobs.engines import engine_on_driver
from tests.spark.records import HOUSEHOLD, card, purchases

DAY = timedelta(days=1)
START = datetime(2024, 2, 27, tzinfo=UTC)
PURCHASES = (
    "household_id long, at timestamp, created timestamp, brand string, product string, category string,"
    " aisle string, value double"
)
CARDS = "household_id long, at timestamp, tier string"


def on(day: float) -> datetime:
    """The instant ``day`` days after the store's first."""
    return START + day * DAY


@dataclass(frozen=True)
class World:
    """Sources under a folder, and what is declared over them."""

    spark: SparkSession
    folder: Path
    settings: Settings
    declarations: Declarations

    def add_purchases(self, rows: list[tuple]) -> None:
        """The rows stand in the purchases source, in one more Delta version."""
        self.add(self.spark.createDataFrame(rows, PURCHASES), "purchases")

    def add_cards(self, rows: list[tuple]) -> None:
        """The rows stand in the card source."""
        self.add(self.spark.createDataFrame(rows, CARDS), "card")

    def add(self, rows: DataFrame, name: str) -> None:
        """The rows stand in a source."""
        rows.coalesce(1).write.format("delta").mode("append").save(str(self.folder / name))


def make_world(
    spark: SparkSession, folder: Path, *, window: timedelta = timedelta(days=20), **changed: object
) -> World:
    """A world without rows."""
    settings = Settings(
        lake=str(folder / "lake"),
        clock=on(30),
        device="cpu",
        users_per_batch=3,
        **changed,  # type: ignore[arg-type]
    )
    digest = engine_on_driver("demo", "cpu").digest
    profile = Profile(
        "shopper",
        HOUSEHOLD,
        [purchases(str(folder / "purchases"), known_at="created"), card(str(folder / "card"))],
        window=window,
    )
    scenarios = [
        Scenario(name=name, query=query, profile="shopper", engine="demo", engine_digest=digest, ttl=ttl)
        for name, query, ttl in (
            ("milk_buyer", "Will they buy milk?", 7 * DAY),
            ("churn", "Will they stop coming?", DAY),
        )
    ]
    return World(spark, folder, settings, Declarations.of("test", [profile], scenarios))


def purchases_of_day(day: int) -> list[tuple]:
    """Users 1 to 4 buy on some days; user 4 only on day 1; a duplicate row on day 2."""
    products = ["milk", "bread", "soap", "wine"]
    rows = [
        (user, on(day + user / 24), on(day + user / 24 + 0.1), "Acme", products[(user + day) % 4],
         "Food" if user % 2 else "Home", None, 1.25 * user)
        for user in (1, 2, 3)
    ]  # fmt: skip
    if day == 1:
        rows.append((4, on(day), on(day), "Solo", "cheese", "Food", "cold", 9.0))
    return [*rows, rows[0]] if day == 2 else rows
