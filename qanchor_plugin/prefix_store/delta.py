"""The Delta tier: prefixes that the refresh stored in ``user_prefixes``."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from qanchor_plugin import schemas as S
from qanchor_plugin.prefix_store.entry import PrefixEntry, entry_from_row
from qanchor_plugin.prefix_store.lake_tables import LakeTables

_COLUMNS = (
    S.USER,
    S.PREFIX_ID,
    S.VISIBLE_DIGEST,
    S.AS_OF,
    S.NUM_EVENTS,
    S.NUM_TOKENS,
    S.TOKENS_DTYPE,
    S.TOKENS,
    S.POSITIONS,
    S.CONTENT_DIGEST,
)


class DeltaTier:
    """Read-only: the refresh job is the only writer of ``user_prefixes``."""

    def __init__(self, tables: LakeTables) -> None:
        self._tables = tables
        self.num_corrupt = 0

    def get_many(
        self, profile: str, asked: Sequence[tuple[bytes, str]], *, with_kv: bool = False
    ) -> dict[bytes, PrefixEntry]:
        """Sound entries by user; users without one of the asked identity are absent.

        Args:
            profile: name of the profile (a partition).
            asked: (user, prefix identity) pairs, one a user.
            with_kv: keys and values are read too; whoever uses them checks them.

        Raises:
            LakeError: the table is there and cannot be read.
        """
        if not asked or not self._tables.exists("user_prefixes"):
            return {}
        if not with_kv:
            return self._read(profile, dict(asked), _COLUMNS)
        found: dict[bytes, PrefixEntry] = {}
        for user, prefix_id in asked:  # one at a time: the others between them are megabytes each
            found |= self._read(profile, {user: prefix_id}, (*_COLUMNS, S.KV_SCHEME, S.KV))
        return found

    def _read(
        self, profile: str, wanted: dict[bytes, str], columns: Sequence[str]
    ) -> dict[bytes, PrefixEntry]:
        where = (
            (ds.field(S.PROFILE) == profile)
            & users_filter(list(wanted))
            & ds.field(S.PREFIX_ID).isin(list(set(wanted.values())))
        )
        table = self._tables.read("user_prefixes", columns=columns, where=where)
        as_of = table.schema.get_field_index(S.AS_OF)
        table = table.set_column(as_of, S.AS_OF, table[S.AS_OF].cast(pa.int64()))
        found: dict[bytes, PrefixEntry] = {}
        for row in table.to_pylist():
            if row[S.PREFIX_ID] != wanted[row[S.USER]]:
                continue
            entry = entry_from_row(row)
            if entry is None or not entry.is_sound(user=row[S.USER], prefix_id=row[S.PREFIX_ID]):
                self.num_corrupt += 1
                continue
            found[entry.user] = entry
        return found


def users_filter(users: Sequence[bytes]) -> ds.Expression:
    """Rows of these users; the range lets Parquet's own statistics skip row groups."""
    user = ds.field(S.USER)
    bounds = (user >= pa.scalar(min(users), pa.binary())) & (user <= pa.scalar(max(users), pa.binary()))
    return bounds & user.isin(pa.array(users, pa.binary()))
