"""What the online path reads of the lake: histories of a few users, texts, watermarks. No JVM."""

import threading
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.prefix_store.delta import users_filter
from qanchor_plugin.prefix_store.pushed import PushedEvents
from qanchor_plugin.sequence import UserHistory, fold_users
from qanchor_plugin.sequence.history import UInt8
from qanchor_plugin.sequence.pushed import PushedEvent, with_pushed

SUCCEEDED = "succeeded"


class LakeReader:
    """Reads of the lake for a process that answers requests.

    Args:
        tables: the lake.
        watermark_seconds: how long the watermarks of ``job_runs`` are used before they are read again.
        pushed: events that the batch has not brought yet are seen too; None sees the batch alone, as training
            and evaluation must.
    """

    def __init__(
        self, tables: LakeTables, *, watermark_seconds: float = 5.0, pushed: PushedEvents | None = None
    ) -> None:
        self.tables = tables
        self.pushed = pushed
        self._num_removals = 0
        self._watermark_seconds = watermark_seconds
        self._watermarks: dict[tuple[str, str], int] = {}
        self._watermarks_at = -np.inf
        self._lock = threading.Lock()

    def histories(self, profile: Profile, users: Sequence[bytes]) -> dict[bytes, UserHistory]:
        """Everything stored (and, where this reader sees it, pushed) of these users; those never seen lack.

        Pushed events are looked at first, and sequences anew where some have gone: they go once the batch
        has brought them, so none is missed between the two.

        Raises:
            LakeError: no sequences have been built yet, or they cannot be read.
        """
        if not users:
            return {}
        pushed = self._pushed_of(profile, users)
        sequences = self._rows("behaviour_sequences", profile, users)
        rows = None
        if profile.tabular_modalities and self.tables.exists("profile_rows"):
            rows = self._rows("profile_rows", profile, users)
        found = {one.user: one for one in fold_users(sequences, rows, profile)}
        return with_pushed(found, pushed, profile) if pushed else found

    def _pushed_of(self, profile: Profile, users: Sequence[bytes]) -> dict[bytes, list[PushedEvent]]:
        if self.pushed is None:
            return {}
        pushed = self.pushed.of(users, [modality.sequence_digest for modality in profile.modalities])
        with self._lock:
            gone, self._num_removals = (
                self.pushed.num_removals != self._num_removals,
                self.pushed.num_removals,
            )
        if gone:
            for name in ("behaviour_sequences", "profile_rows"):
                self.tables.expire(name)
        return pushed

    def _rows(self, table: str, profile: Profile, users: Sequence[bytes]) -> pa.Table:
        digests = [modality.sequence_digest for modality in profile.modalities]
        where = ds.field(S.MODALITY_DIGEST).isin(digests) & users_filter(users)
        return self.tables.read(table, where=where)

    def texts(self, ids: UInt8) -> list[str | None]:
        """The event texts of ``ids`` ((N, 16) uint8), in order; None where there is none."""
        wanted = [row.tobytes() for row in np.ascontiguousarray(ids).reshape(-1, TEXT_ID_BYTES)]
        where = ds.field(S.TEXT_ID).isin(pa.array(list(set(wanted)), pa.binary()))
        table = self.tables.read("event_texts", columns=[S.TEXT_ID, S.TEXT], where=where)
        found = dict(zip(table[S.TEXT_ID].to_pylist(), table[S.TEXT].to_pylist(), strict=True))
        absent = set(wanted) - found.keys()
        found |= self.pushed.texts(absent) if absent and self.pushed is not None else {}
        return [found.get(one) for one in wanted]

    def buckets(self, users: Sequence[bytes]) -> dict[bytes, int]:
        """The partition that the refresh gave these users; those it never saw are absent."""
        found: dict[bytes, int] = {}
        for name in ("behaviour_sequences", "profile_rows"):
            missing = [user for user in users if user not in found]
            if missing and self.tables.exists(name):
                table = self.tables.read(name, columns=[S.USER, S.USER_BUCKET], where=users_filter(missing))
                found.update(zip(table[S.USER].to_pylist(), table[S.USER_BUCKET].to_pylist(), strict=True))
        return found

    def complete_to(self, scenario: str, scenario_id: str) -> int | None:
        """The instant up to which a scenario of this identity is complete; None before its first run.

        Microseconds since 1970 UTC, from ``job_runs``, at most ``watermark_seconds`` old.

        Raises:
            LakeError: the table is there and cannot be read.
        """
        with self._lock:
            if time.monotonic() - self._watermarks_at >= self._watermark_seconds:
                self._watermarks = self._read_watermarks()
                self._watermarks_at = time.monotonic()
            return self._watermarks.get((scenario, scenario_id))

    def _read_watermarks(self) -> dict[tuple[str, str], int]:
        if not self.tables.exists("job_runs"):
            return {}
        where = (
            (ds.field(S.STATE) == SUCCEEDED)
            & ds.field(S.SCENARIO).is_valid()
            & ds.field(S.COMPLETE_TO).is_valid()
        )
        runs = self.tables.read("job_runs", columns=[S.SCENARIO, S.SCENARIO_ID, S.COMPLETE_TO], where=where)
        newest = runs.group_by([S.SCENARIO, S.SCENARIO_ID]).aggregate([(S.COMPLETE_TO, "max")])
        instants = newest[f"{S.COMPLETE_TO}_max"].cast(pa.int64()).to_pylist()
        keys = zip(newest[S.SCENARIO].to_pylist(), newest[S.SCENARIO_ID].to_pylist(), strict=True)
        return dict(zip(keys, instants, strict=True))
