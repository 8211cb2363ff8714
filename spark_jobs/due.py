"""Which answers of which users are to be made at an end, each with the reason."""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from spark_jobs.build_prefixes import newest_prefixes
from spark_jobs.embed_scenarios import WANTED, embedding_id_of
from spark_jobs.engines import AskedGroup, AskedQuery
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour

NEW_SCENARIO, NEW_PREFIX, AGED, FULL = "new_scenario", "new_prefix", "aged", "full"
"""No answer of this identity stands · the user's prefix is another · the answer's day has come · all were
asked for."""

REASONS = "reasons"
_SERVED = "served"
_SCHEMA = "user binary, cutoff timestamp, batch string, wanted array<string>, reasons array<string>"
_ARROW = pa.schema(
    [
        (S.USER, pa.binary()),
        (S.CUTOFF, S.INSTANT),
        (S.BATCH, pa.string()),
        (WANTED, pa.list_(pa.string())),
        (REASONS, pa.list_(pa.string())),
    ]
)
_Batches = Iterator[pa.RecordBatch]


def wanted_answers(
    lake: Lake, group: AskedGroup, *, end: int, full: bool, but: Sequence[str] = ()
) -> DataFrame:
    """Of each user with an answer to be made: the prefix's cutoff and batch, scenario names and reasons.

    Only identities are read and compared: no token, no event, no engine.

    Args:
        end: microseconds since 1970 UTC.
        full: answer anew whatever an answer at ``end`` would have another identity for.
        but: readable keys of users whose prefix could not be built: an answer as of ``end`` from their older
            one would hide that, so their last sound answer stays with the cutoff that it has.
    """
    known = behaviour(lake, group.profile).where(~F.col(S.USER_KEY).isin(list(but)))
    known = known.select(S.USER).distinct()
    prefixes = newest_prefixes(lake, group, end=end).join(known, on=S.USER, how="left_semi")
    served = prefixes.join(_newest_answers(lake, group, end=end), on=S.USER, how="left")
    columns = served.select(S.USER, S.CUTOFF, S.BATCH, S.PREFIX_ID, F.to_json(F.col(_SERVED)).alias(_SERVED))
    return columns.mapInArrow(_judge(group, end, full), _SCHEMA)


def counted(wanted: DataFrame) -> dict[str, dict[str, int]]:
    """How many answers there are to be made, by scenario and reason."""
    each = wanted.select(F.explode(F.arrays_zip(WANTED, REASONS)).alias("one")).select("one.*")
    found: dict[str, dict[str, int]] = {}
    for row in each.groupBy(WANTED, REASONS).count().collect():
        found.setdefault(row[WANTED], {})[row[REASONS]] = row["count"]
    return found


def is_due(user: bytes, *, made_day: int, end_day: int, ttl_days: float) -> bool:
    """Whether a clean user's turn has come between two days.

    Every user has a turn each ``ttl`` days (at least daily; never where answers serve for ever), and the
    turns are spread over the days: an answer is made anew at the latest when it is as old as the ttl.
    """
    if ttl_days <= 0:
        return False
    period = max(1, int(ttl_days))
    turn = zlib.crc32(user) % period
    return (end_day + turn) // period > (made_day + turn) // period


def reason_of(
    query: AskedQuery,
    group: AskedGroup,
    row: Mapping[str, Any],
    served: Mapping[str, Any],
    end: int,
    full: bool,
) -> str | None:
    """Why the answer is to be made; None when the stored one serves."""
    stands = served.get(query.scenario)
    if stands is None:
        return NEW_SCENARIO
    made = int(stands[S.CUTOFF])
    if stands[S.EMBEDDING_ID] != embedding_id_of(query, row[S.PREFIX_ID], group.engine, made):
        return NEW_PREFIX
    days = {"made_day": made // MICROS_PER_DAY, "end_day": end // MICROS_PER_DAY}
    if not group.engine.suffix_knows_time or days["made_day"] == days["end_day"]:
        return None
    if full:
        return FULL
    return AGED if is_due(row[S.USER], **days, ttl_days=query.ttl_days) else None


def _newest_answers(lake: Lake, group: AskedGroup, *, end: int) -> DataFrame:
    """Of each user: a map from scenario to the newest stored answer's identity and cutoff (microseconds)."""
    rows = lake.read("scenario_embeddings").where(
        F.col(S.SCENARIO).isin([one.scenario for one in group.queries])
        & F.col(S.SCENARIO_ID).isin([one.scenario_id for one in group.queries])
        & (F.unix_micros(S.CUTOFF) <= end)
    )
    answer = F.struct(S.EMBEDDING_ID, F.unix_micros(S.CUTOFF).alias(S.CUTOFF))
    newest = F.max_by(answer, F.struct(S.CUTOFF, S.SERVED_AT, S.BATCH)).alias("answer")
    each = rows.groupBy(S.USER, S.SCENARIO).agg(newest)
    pairs = F.collect_list(F.struct(S.SCENARIO, "answer"))
    return each.groupBy(S.USER).agg(F.map_from_entries(pairs).alias(_SERVED))


def _judge(group: AskedGroup, end: int, full: bool) -> Callable[[_Batches], _Batches]:
    def judge(batches: _Batches) -> _Batches:
        for batch in batches:
            made = []
            for row in batch.to_pylist():
                served = json.loads(row[_SERVED] or "{}")
                reasons = {
                    query.scenario: reason
                    for query in group.queries
                    if (reason := reason_of(query, group, row, served, end, full))
                }
                if reasons:
                    kept = {name: row[name] for name in (S.USER, S.CUTOFF, S.BATCH)}
                    made.append(kept | {WANTED: list(reasons), REASONS: list(reasons.values())})
            yield from pa.Table.from_pylist(made, schema=_ARROW).to_batches()

    return judge
