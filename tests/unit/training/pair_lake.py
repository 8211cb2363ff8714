"""A lake of households with pairs about them, by literal rules."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile
from qanchor_plugin.training.useru.pairs import Pair, pairs_table
from tests.shop import HOME, HOUSEHOLD, PURCHASES, ShopLake, at, home_row, user

PROFILE = Profile("journey", HOUSEHOLD, [PURCHASES, HOME], window=None)
NUM_HOUSEHOLDS, NUM_SHARDS, HELD_OUT = 24, 4, (5, 18)
CUTOFFS = (at("2017-06-01"), at("2017-09-01"))
GOODS = (("whole milk", "dairy"), ("rye bread", "bakery"), ("red wine", "drinks"), ("eggs", "dairy"))
QUESTIONS = tuple(f"How often will dairy be bought within {days} days?" for days in (30, 60, 90))
SCALE = ("none", "once", "two to four times", "five times or more")


class RandomVectors:
    """A unit vector for every text id, drawn from the id itself; counts what is asked for."""

    def __init__(self, dim: int = 384) -> None:
        self.dim = dim

    def lookup(self, ids: np.ndarray) -> np.ndarray:
        rows = [np.random.default_rng(list(one.tobytes())).normal(size=self.dim) for one in ids]
        found = np.array(rows).reshape(len(ids), self.dim)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def shard_of(household: int) -> int:
    """Shards of six neighbours."""
    return household * NUM_SHARDS // NUM_HOUSEHOLDS


def events_of(household: int) -> list[tuple[str, str, str, float]]:
    """One purchase a month from January to November, of goods that depend on the household."""
    random = np.random.default_rng(household)
    goods = [GOODS[one] for one in random.integers(0, 1 + household % len(GOODS), 11)]
    return [(f"2017-{month:02d}-10", name, group, 1.5) for month, (name, group) in enumerate(goods, 1)]


def literal_pairs(households: Iterable[int], cutoffs: Iterable[int] = CUTOFFS) -> list[Pair]:
    """Three outcome questions and two topics a household and cutoff."""
    made = []
    for household in households:
        common = {
            "user": user(household),
            "user_key": json.dumps({"household_id": household}),
            "generator": "literal",
            "shard": shard_of(household),
        }
        for cutoff in cutoffs:
            for number, query in enumerate(QUESTIONS):
                answer = SCALE[(household + number) % 4]
                made.append(
                    Pair(
                        **common, cutoff=cutoff, kind="outcome", topic="dairy", query=query, answer=answer,
                        alternatives=SCALE,
                    )
                )  # fmt: skip
            for topic in ("wine", "bread"):
                query, answer = f"Does household {household} like {topic}?", f"{topic}: {household % 3}"
                made.append(
                    Pair(**common, cutoff=cutoff, kind="uqa", topic=topic, query=query, answer=answer)
                )
    return made


def write_pairs(folder: Path, pairs: list[Pair], mode: str = "overwrite") -> None:
    """The pairs are the table, a partition a shard; held out are literally :data:`HELD_OUT`."""
    table = pairs_table(pairs)
    kept_out = {user(one) for one in HELD_OUT}
    column = pa.array([pair.user in kept_out for pair in pairs], pa.bool_())
    table = table.set_column(table.schema.get_field_index(S.HELD_OUT), S.HELD_OUT, column)
    write_deltalake(folder / "useru_pairs", table, mode=mode, partition_by=[S.SHARD])


def behaviour_lake(folder: Path, households: Iterable[int] = range(NUM_HOUSEHOLDS)) -> ShopLake:
    """The households' events and static rows; no vectors, no pairs."""
    from tests.shop import sequence_row

    lake = ShopLake(folder)
    lake.append("behaviour_sequences", [sequence_row(one, events_of(one)) for one in households])
    lake.append("profile_rows", [home_row(one, "small") for one in households])
    lake.add_texts([*(word for good in GOODS for word in good), "small home"])
    return lake


def pair_lake(folder: Path) -> ShopLake:
    """Behaviour and pairs of all households."""
    lake = behaviour_lake(folder)
    write_pairs(folder, literal_pairs(range(NUM_HOUSEHOLDS)))
    return lake


def built(lake: ShopLake, until: str, profile_digest: str = PROFILE.digest, run: str = "r1") -> None:
    """``job_runs`` says that the pairs of a profile were built up to an instant."""
    row = {
        S.JOB: "pairs",
        S.RUN: run,
        S.STATE: "succeeded",
        S.SCENARIO: None,
        S.SCENARIO_ID: None,
        S.STARTED_AT: at(until),
        S.ENDED_AT: at(until),
        S.COMPLETE_TO: at(until),
        S.SOURCE_VERSIONS: json.dumps({"profile": profile_digest}),
        S.COUNTS: "{}",
        S.MESSAGE: "",
    }
    write_deltalake(
        lake.folder / "job_runs", pa.Table.from_pylist([row], schema=S.TABLES["job_runs"]), mode="append"
    )
