"""Users leave the online store: every row of theirs, ordinary feature views included."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from feast import RepoConfig
from feast.infra.online_stores.helpers import get_online_store_from_config

from qanchor_plugin.errors import OnlineStoreError
from qanchor_plugin.feast_ext.online_write import is_redis, naming_the_store

_KEYS_AT_ONCE = 500


def forget_online(config: RepoConfig, users: Sequence[bytes]) -> int:
    """No row of the project holds these entity keys; how many rows or hashes are gone.

    Args:
        users: serialised entity keys (version 3).

    Raises:
        OnlineStoreError: the store is down, or of a kind from which users cannot be removed here.
    """
    online: Any = config.online_store
    if online is None:
        return 0
    kind = str(getattr(online, "type", ""))
    with naming_the_store(config):
        if is_redis(online):
            return _redis(config, users)
        if kind.lower().endswith(("sqlite", "sqliteonlinestore")):
            return _sqlite(config, users)
    raise OnlineStoreError(
        f"users cannot be removed from an online store of type {kind!r} here; accepted are sqlite and redis. "
        "Remove their keys by the store's own means."
    )


def _redis(config: RepoConfig, users: Sequence[bytes]) -> int:
    """One hash holds all views of an entity key."""
    store: Any = get_online_store_from_config(config.online_store)
    client = store._get_client(config.online_store)
    try:
        keys = [user + config.project.encode() for user in users]
        parts = [keys[at : at + _KEYS_AT_ONCE] for at in range(0, len(keys), _KEYS_AT_ONCE)]
        return sum(int(client.delete(key)) for part in parts for key in part)
    finally:
        client.close()


def _sqlite(config: RepoConfig, users: Sequence[bytes]) -> int:
    """Rows are overwritten with zeros and the file is written anew: nothing stays in free pages."""
    store: Any = get_online_store_from_config(config.online_store)
    path = store._get_db_path(config)
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=60)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        removed = 0
        for table in _tables(connection, f"{config.project}_"):
            with connection:
                cursor = connection.executemany(
                    f'DELETE FROM "{table}" WHERE entity_key = ?', [(user,) for user in users]
                )
                removed += max(0, cursor.rowcount)
        if removed:
            connection.execute("VACUUM")
        return removed


def _tables(connection: sqlite3.Connection, prefix: str) -> list[str]:
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = []
    for name in names:
        columns = {row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')}
        if name.startswith(prefix) and "entity_key" in columns:
            found.append(name)
    return found
