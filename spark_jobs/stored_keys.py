"""Keys and values that the prefix job stored, for the scenario job: else each user would be prefilled twice.

They are megabytes a user, so they do not pass through Spark: a task reads its users' through delta-rs, as a
worker does, which is the path that ``qanchor calibrate`` measured.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.prefix_store import DeltaTier, KVPolicy, LakeTables, PrefixEntry, kv_policy
from spark_jobs.engines import AskedGroup, engine_on_driver

if TYPE_CHECKING:
    from qanchor_plugin.engine.kv import KeptKV

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StoredKeys:
    """Where they stand and when loading them pays; travels to executors."""

    lake: str
    profile: str
    policy: KVPolicy

    def of(self, rows: Sequence[Mapping[str, Any]]) -> "list[KeptKV | None]":
        """Sound keys and values of each row of ``user_prefixes``, None where it is to be prefilled."""
        asked = [(row[S.USER], row[S.PREFIX_ID]) for row in rows]
        found = _tier(self.lake).get_many(self.profile, asked, with_kv=True)
        kept: list[KeptKV | None] = []
        for row in rows:
            entry = found.get(row[S.USER])
            same = entry is not None and entry.content_digest == row[S.CONTENT_DIGEST]
            kept.append(self._usable(entry) if same and entry is not None else None)
        return kept

    def _usable(self, entry: PrefixEntry) -> "KeptKV | None":
        kv = entry.kv
        if kv is None or not self.policy.loads("delta", kv.kept.scheme, len(entry.tokens)):
            return None
        fault = entry.kv_fault(kv_digest=self.policy.kv_digest)
        if fault is not None:
            _log.warning("stored keys and values of a user are %s; the prefix is prefilled", fault)
        return kv.kept if fault is None else None


def stored_keys(settings: Settings, group: AskedGroup) -> StoredKeys | None:
    """As the settings say; None where workers compute, or where no length pays."""
    if group.workers is not None:
        return None
    policy = kv_policy(settings, engine_on_driver(group.engine.name, group.engine.device))
    if not policy.reads("delta"):
        return None
    return StoredKeys(lake=settings.lake.removeprefix("file://"), profile=group.profile.name, policy=policy)


@lru_cache(maxsize=2)
def _tier(lake: str) -> DeltaTier:
    return DeltaTier(LakeTables(lake))
