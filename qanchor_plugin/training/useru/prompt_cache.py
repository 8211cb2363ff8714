"""Answers of an LLM by prompt digest, on disk: an interrupted run goes on where it stopped."""

import sqlite3
import threading
from pathlib import Path

from qanchor_plugin.errors import LakeError

WAIT_SECONDS = 60.0
"""How long one process waits while another writes."""


class PromptCache:
    """A small SQLite file; safe from several threads and processes, each answer committed when it is put."""

    def __init__(self, path: str | Path) -> None:
        """Opens ``path``, making it where it does not exist.

        Raises:
            LakeError: the file cannot be opened as a cache.
        """
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
            with self._connection:
                self._connection.execute(
                    "create table if not exists answers (digest text primary key, content text not null)"
                )
        except sqlite3.Error as error:
            raise LakeError(
                f"the prompt cache {path} cannot be opened ({error}); give another path, or remove the file."
            ) from error

    def get(self, digest: str) -> str | None:
        """The stored answer, or None."""
        with self._lock:
            row = self._connection.execute(
                "select content from answers where digest = ?", (digest,)
            ).fetchone()
        return None if row is None else row[0]

    def put(self, digest: str, content: str) -> None:
        """Afterwards the answer is on disk."""
        with self._lock, self._connection:
            self._connection.execute("insert or replace into answers values (?, ?)", (digest, content))

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> "PromptCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
