"""A person's own tables, small and literal, and the command line as a function."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from tests.qanchor_command import qanchor  # noqa: F401  (a fixture)


@pytest.fixture
def own_tables(tmp_path: Path) -> Path:
    """``purchases`` and ``visits`` (Delta), ``customers.parquet``, one row a customer, without a time."""
    bought = [
        {
            "customer_id": number % 4,
            "basket_id": 100 + number,
            "brand": ("oak", "elm")[number % 2],
            "category": ("dairy", "bakery", "drinks")[number % 3],
            "note": "",
            "sales_value": 1.5 * number,
            "event_timestamp": datetime(2025, 1, 1 + number, 12, tzinfo=UTC),
        }
        for number in range(12)
    ]
    write_deltalake(tmp_path / "purchases", pa.Table.from_pylist(bought))
    visits = [
        {
            "customer_id": 1,
            "page": page,
            "visited_at": datetime(2025, 3, 1),
            "created_at": datetime(2025, 3, 2),
        }
        for page in ("home", "cart", "home")
    ]
    write_deltalake(tmp_path / "visits", pa.Table.from_pylist(visits))
    people = [
        {"customer_id": number, "age": "26-40", "joined": date(2020, 1, 1 + number)} for number in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(people).drop_columns("joined"), tmp_path / "customers.parquet")
    pq.write_table(pa.Table.from_pylist(people), tmp_path / "members.parquet")
    return tmp_path
