"""A synthetic shop for benchmarks: any number of users, seeded, one purchase table."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from qanchor_plugin.declare import Declarations, EntityRef, Modality, Profile, Scenario, SourceSpec

END = datetime(2024, 7, 1, tzinfo=UTC)
QUESTIONS = (
    "Will they buy again?",
    "Will they stop soon?",
    "Will they buy fruit?",
    "Will they use deals?",
    "Do they have a pet??",
    "Will they buy beer??",
    "Do they have a baby?",
)
"""Of 20 characters each, as many tokens as an ordinary question has."""
_BRANDS, _PRODUCTS, _CATEGORIES = 12, 60, 30


def write_purchases(path: Path, *, num_users: int, events_per_user: int, seed: int = 7) -> None:
    """A Delta table of ``num_users * events_per_user`` purchases within the year before ``END``."""
    random = np.random.default_rng(seed)
    for start in range(0, num_users, 2_000):
        users = np.arange(start, min(start + 2_000, num_users))
        size = len(users) * events_per_user
        product = random.integers(0, _PRODUCTS, size)
        seconds = random.integers(1, 364 * 86_400, size)
        at = np.datetime64(END.replace(tzinfo=None), "us") - seconds.astype("timedelta64[s]")
        table = pa.table(
            {
                "user_id": np.repeat(users, events_per_user),
                "bought_at": pa.array(at, pa.timestamp("us", tz="UTC")),
                "brand": [f"brand {n}" for n in random.integers(0, _BRANDS, size)],
                "product": [f"product {n}" for n in product],
                "category": [f"category {n}" for n in product % _CATEGORIES],
                "price": random.gamma(2.0, 2.0, size),
            }
        )
        write_deltalake(path, table, mode="append")


def declarations(purchases: Path, *, engine: str, engine_digest: str, max_events: int) -> Declarations:
    """One profile over the purchases, and seven scenarios answered by ``engine``."""
    modality = Modality(
        "purchases",
        SourceSpec(name="purchases", path=str(purchases), event_at="bought_at"),
        "{brand} {product}",
        group_by=("category",),
        amounts=("price",),
        max_events=max_events,
    )
    entity = EntityRef(name="user", join_key="user_id", value_type="INT64")
    profile = Profile("shoppers", entity, [modality], window=timedelta(days=365))
    scenarios = [
        Scenario(
            name=f"question_{number}",
            query=query,
            profile=profile.name,
            engine=engine,
            engine_digest=engine_digest,
        )
        for number, query in enumerate(QUESTIONS)
    ]
    return Declarations.of("bench", [profile], scenarios)
