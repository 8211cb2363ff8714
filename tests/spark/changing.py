"""A purchases source whose rows come, change and go, seeded; written by delta-rs with a change data feed."""

import random
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from qanchor_plugin.schemas import INSTANT
from tests.spark.world import DAY, on

SCHEMA = pa.schema(
    [
        ("household_id", pa.int64()),
        ("at", INSTANT),
        ("created", INSTANT),
        ("brand", pa.string()),
        ("product", pa.string()),
        ("category", pa.string()),
        ("aisle", pa.string()),
        ("value", pa.float64()),
    ]
)
PRODUCTS = ("milk", "bread", "soap", "wine", "cheese")
FEED = {"delta.enableChangeDataFeed": "true"}


def create(path: Path, rows: list[tuple], *, feed: bool = True) -> None:
    """The table stands with these rows."""
    write_deltalake(path, _table(rows), configuration=FEED if feed else {})


def append(path: Path, rows: list[tuple]) -> None:
    """The rows are in the table, in one more version."""
    write_deltalake(path, _table(rows), mode="append")


def purchase(user: int, at: datetime, product: str, *, late: timedelta = timedelta(0)) -> tuple:
    """A row of the source."""
    return (user, at, at + late, "Acme", product, "Food", None, 1.5)


class ChangingPurchases:
    """Users 1 to ``num_users`` buy, and what they bought is corrected, all drawn from one seed."""

    def __init__(self, path: Path, *, seed: int, num_users: int) -> None:
        self.path, self.random, self.num_users = path, random.Random(seed), num_users
        rows = [self._bought(user, day) for user in range(1, num_users + 1) for day in (0, 1)]
        create(path, rows)

    def live_through(self, day: int) -> None:
        """A day's appends (one is late, one known later), an update, a deletion; some days a user goes."""
        users = self.random.sample(range(1, self.num_users + 1), k=max(2, self.num_users // 3))
        rows = [self._bought(user, day) for user in users]
        rows.append(self._bought(self.random.choice(users), day - 2))
        rows.append(purchase(users[0], on(day + 0.5), "soap", late=timedelta(days=1.7)))
        append(self.path, rows)
        table = DeltaTable(self.path)
        changed, corrected = self.random.choice(PRODUCTS), self.random.choice(PRODUCTS)
        table.update({"product": f"'{corrected}'"}, predicate=f"{self._someone()} AND product = '{changed}'")
        table.delete(f"{self._someone()} AND product = '{self.random.choice(PRODUCTS)}'")
        if day % 2:
            table.delete(self._someone())

    def _someone(self) -> str:
        return f"household_id = {self.random.randint(1, self.num_users)}"

    def _bought(self, user: int, day: float) -> tuple:
        at = on(day) + self.random.random() * DAY
        return purchase(user, at.replace(microsecond=0), self.random.choice(PRODUCTS))


def _table(rows: list[tuple]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)
