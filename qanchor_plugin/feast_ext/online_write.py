"""Writes to the online store: an older row never replaces a newer one."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from feast import RepoConfig
from feast.infra.online_stores.online_store import OnlineStore

from qanchor_plugin.errors import OnlineStoreError
from qanchor_plugin.feast_ext.online_rows import WriteRow


class OnlineWriter:
    """Writes rows of feature views in batches; the event timestamp decides who wins.

    SQLite's own upsert is unconditional, so what stands there is read before it is replaced. Redis
    compares by itself (and drops equal timestamps too).

    Args:
        config: the feature repo's.
        store: the online store, not shared with readers of other threads.
    """

    def __init__(self, config: RepoConfig, store: OnlineStore) -> None:
        self._config = config
        self._store = store
        online = config.online_store
        self._compares = is_redis(online) and not getattr(online, "skip_dedup", False)

    def write(self, view: Any, rows: Sequence[WriteRow]) -> int:
        """The rows stand in the store, those older than what stood there excepted; how many were written.

        Raises:
            OnlineStoreError: the store is down or has no table for the view; names it.
        """
        with naming_the_store(self._config):
            kept = list(rows) if self._compares else self._newer(view, rows)
            if kept:
                self._store.online_write_batch(self._config, view, kept, None)
            return len(kept)

    def _newer(self, view: Any, rows: Sequence[WriteRow]) -> list[WriteRow]:
        if not rows:
            return []
        first = [view.features[0].name]
        standing = self._store.online_read(self._config, view, [row[0] for row in rows], first)
        return [
            row
            for row, (stored_at, _) in zip(rows, standing, strict=True)
            if stored_at is None or row[2].timestamp() >= int(stored_at.timestamp())
        ]


@contextmanager
def naming_the_store(config: RepoConfig) -> Iterator[None]:
    """Failures of the online store inside become one clear error.

    Raises:
        OnlineStoreError: names the store and the next step; never a password.
    """
    try:
        yield
    except _store_failures() as error:
        where = _place(config.online_store)
        hint = "Start it, or correct 'online_store:' in feature_store.yaml."
        if "no such table" in str(error):
            hint = "Run feast apply: it makes the store's tables."
        raise OnlineStoreError(
            f"the online store {where} failed ({type(error).__name__}: {error}). {hint}"
        ) from error


def _store_failures() -> tuple[type[Exception], ...]:
    found: tuple[type[Exception], ...] = (sqlite3.Error, OSError)
    try:
        from redis.exceptions import RedisError
    except ModuleNotFoundError:
        return found
    return (*found, RedisError)


def is_redis(online: Any) -> bool:
    return str(getattr(online, "type", "")).lower().endswith(("redis", "redisonlinestore"))


def _place(online: Any) -> str:
    """Type and place; of a connection string only the hosts, never the password."""
    kind = str(getattr(online, "type", type(online).__name__))
    connection = getattr(online, "connection_string", None)
    if connection:
        hosts = [part for part in str(connection).split(",") if "=" not in part]
        return f"{kind} at {', '.join(hosts)}"
    path = getattr(online, "path", None)
    return f"{kind} at {path}" if path else kind
