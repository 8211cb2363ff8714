"""The lake's ``useru_pairs`` at one version, read a shard at a time: the set need not fit in memory."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds

from qanchor_plugin import schemas as S
from qanchor_plugin.backend.lake_reader import SUCCEEDED
from qanchor_plugin.errors import InputDataError, LakeError
from qanchor_plugin.extras import require
from qanchor_plugin.prefix_store import LakeTables

_T = TypeVar("_T")
OUTCOME = "outcome"
JOB = "pairs"
NO_PAIRS = "Make them: qanchor pairs --until INSTANT (nothing from that instant on is trained on)."
_COLUMNS = (S.USER, S.CUTOFF, S.KIND, S.QUERY, S.ANSWER, S.ALTERNATIVES)


@dataclass(frozen=True, kw_only=True)
class PairRows:
    """A shard's pairs about the users of one side (trained on, or held out), in a fixed order.

    Attributes:
        keys: distinct (user, cutoff in microseconds), ascending.
        key_of: P, the row of ``keys`` that the pair is about.
        kinds, queries, answers, alternatives: P, of each pair.
    """

    keys: tuple[tuple[bytes, int], ...]
    key_of: tuple[int, ...]
    kinds: tuple[str, ...]
    queries: tuple[str, ...]
    answers: tuple[str, ...]
    alternatives: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class PairsBuild:
    """What the last build of the pairs said of itself.

    Attributes:
        known_until: no pair tells of anything from this instant on (microseconds).
        profile_digest: of the profile whose behaviour the pairs are about.
    """

    known_until: int
    profile_digest: str | None


def last_build(tables: LakeTables) -> PairsBuild | None:
    """The newest successful build of the pairs, from ``job_runs``; None where none is written down.

    Raises:
        LakeError: the table is there and cannot be read.
    """
    if not tables.exists("job_runs"):
        return None
    where = (ds.field(S.JOB) == JOB) & (ds.field(S.STATE) == SUCCEEDED) & ds.field(S.COMPLETE_TO).is_valid()
    rows = tables.read("job_runs", columns=[S.RUN, S.COMPLETE_TO, S.SOURCE_VERSIONS], where=where)
    if not rows.num_rows:
        return None
    newest = rows.sort_by([(S.RUN, "descending")]).slice(0, 1)
    told = json.loads(newest[S.SOURCE_VERSIONS][0].as_py() or "{}")
    return PairsBuild(
        known_until=newest[S.COMPLETE_TO].cast(pa.int64())[0].as_py(), profile_digest=told.get("profile")
    )


class PairTable:
    """Pairs of one version of the table, whatever is written meanwhile.

    Args:
        lake: folder or URI of the lake.
        kinds: only pairs of these kinds; None takes all.
        version: of the Delta table; None is the newest.

    Attributes:
        version: the one that is read.
        num_pairs: by (shard, held out).
        num_rows_read: rows that :meth:`shard` has brought into memory so far.

    Raises:
        InputDataError: there are no pairs; names the command that makes them.
        LakeError: the table cannot be read.
    """

    def __init__(
        self,
        lake: str,
        *,
        kinds: Sequence[str] | None = None,
        version: int | None = None,
    ) -> None:
        deltalake = require("deltalake", purpose="Reading the lake")
        self._path = f"{lake}/{S.PAIRS_TABLE}"
        try:
            table: Any = deltalake.DeltaTable(self._path, version=version)
            self._rows: ds.Dataset = table.to_pyarrow_dataset()
        except deltalake.exceptions.TableNotFoundError as error:
            raise InputDataError(
                f"the lake {lake!r} has no table {S.PAIRS_TABLE!r} yet. {NO_PAIRS}"
            ) from error
        except (OSError, pa.ArrowException, deltalake.exceptions.DeltaError) as error:
            raise LakeError(f"{self._path} cannot be opened ({error}). {NO_PAIRS}") from error
        self.version: int = table.version()
        self._where = ds.scalar(True)
        if kinds is not None:
            self._where &= ds.field(S.KIND).isin(list(kinds))
        self.num_rows_read = 0
        self.num_pairs = self._counted()
        if not self.num_pairs:
            chosen = "" if kinds is None else f" of kinds {list(kinds)}"
            raise InputDataError(f"{self._path} holds no pairs{chosen}. {NO_PAIRS}")

    def shards(self, *, held_out: bool) -> tuple[int, ...]:
        """Numbers of the shards with pairs on that side, ascending."""
        return tuple(sorted(shard for shard, side in self.num_pairs if side == held_out))

    def shard(self, number: int, *, held_out: bool) -> PairRows:
        """The shard's pairs on one side, in an order that does not depend on how files are laid out.

        Raises:
            LakeError: they cannot be read.
        """
        rows = self._read(list(_COLUMNS), number, held_out=held_out)
        self.num_rows_read += rows.num_rows
        order = [(name, "ascending") for name in (S.USER, S.CUTOFF, S.KIND, S.QUERY, S.ANSWER)]
        return _pair_rows(rows.sort_by(order))

    def newest_cutoffs(self, number: int) -> dict[bytes, int]:
        """The newest cutoff (microseconds) of each user of the shard that is trained on, by ascending user.

        Raises:
            LakeError: they cannot be read.
        """
        rows = self._read([S.USER, S.CUTOFF], number, held_out=False)
        newest = rows.group_by(S.USER).aggregate([(S.CUTOFF, "max")]).sort_by(S.USER)
        instants = newest[f"{S.CUTOFF}_max"].cast(pa.int64()).to_pylist()
        return dict(zip(newest[S.USER].to_pylist(), instants, strict=True))

    def questions(self, *, most: int) -> list[str]:
        """Distinct questions of the pairs that are trained on, ascending: all of the first shards that hold
        ``most`` of them, or of the whole table where it holds fewer.

        Raises:
            LakeError: they cannot be read.
        """
        found: set[str] = set()
        for number in self.shards(held_out=False):
            found.update(self._read([S.QUERY], number, held_out=False)[S.QUERY].unique().to_pylist())
            if len(found) >= most:
                break
        return sorted(found)

    def _read(self, columns: list[str], number: int, *, held_out: bool) -> pa.Table:
        where = self._where & (ds.field(S.SHARD) == number) & (ds.field(S.HELD_OUT) == held_out)
        try:
            return self._rows.to_table(columns=columns, filter=where)
        except (OSError, pa.ArrowException) as error:
            raise LakeError(f"shard {number} of {self._path} cannot be read ({error}). {NO_PAIRS}") from error

    def _counted(self) -> dict[tuple[int, bool], int]:
        """Pairs by shard and side, counted batch by batch."""
        counts: Counter[tuple[int, bool]] = Counter()
        try:
            batches = self._rows.scanner(columns=[S.SHARD, S.HELD_OUT], filter=self._where).to_batches()
            for batch in batches:
                grouped = pa.table(batch).group_by([S.SHARD, S.HELD_OUT]).aggregate([([], "count_all")])
                for row in grouped.to_pylist():
                    counts[row[S.SHARD], row[S.HELD_OUT]] += row["count_all"]
        except (OSError, pa.ArrowException) as error:
            raise LakeError(
                f"{self._path} cannot be read ({error}). It may be of an older version: make the pairs "
                "again. "
                f"{NO_PAIRS}"
            ) from error
        return dict(counts)


def _pair_rows(rows: pa.Table) -> PairRows:
    users = rows[S.USER].to_pylist()
    cutoffs = rows[S.CUTOFF].cast(pa.int64()).to_pylist()
    number: dict[tuple[bytes, int], int] = {}
    key_of = [number.setdefault(key, len(number)) for key in zip(users, cutoffs, strict=True)]
    scales = (tuple(one or ()) for one in rows[S.ALTERNATIVES].to_pylist())
    return PairRows(
        keys=tuple(number),
        key_of=tuple(key_of),
        kinds=_shared(rows[S.KIND].to_pylist()),
        queries=_shared(rows[S.QUERY].to_pylist()),
        answers=_shared(rows[S.ANSWER].to_pylist()),
        alternatives=_shared(scales),
    )


def _shared(values: Iterable[_T]) -> tuple[_T, ...]:
    """The values, equal ones as one object: a shard asks all its users the same."""
    known: dict[_T, _T] = {}
    return tuple(known.setdefault(one, one) for one in values)
