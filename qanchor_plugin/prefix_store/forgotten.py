"""Who asked to be forgotten, as salted digests: no run and no push may bring them back."""

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path

from qanchor_plugin.errors import LakeError

FOLDER = "_forgotten"
LIST = "users.json"
_SALT_BYTES = 32


class ForgottenUsers:
    """The list of one lake. Keys cannot be read from it; whoever holds salt and a key can test the key.

    Args:
        lake: folder of the lake.

    Raises:
        LakeError: the list is there and cannot be read.
    """

    def __init__(self, lake: str | Path) -> None:
        self._path = Path(lake) / FOLDER / LIST
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self.digests: set[str] = set()
        if not self._path.is_file():
            return
        try:
            told = json.loads(self._path.read_text(encoding="utf-8"))
            self._salt, self.digests = bytes.fromhex(told["salt"]), set(told["digests"])
        except (OSError, ValueError, KeyError) as error:
            raise LakeError(
                f"{self._path} cannot be read ({error}). Restore it from a backup: without it forgotten "
                "users would come back."
            ) from error

    def __len__(self) -> int:
        return len(self.digests)

    def __contains__(self, user: bytes) -> bool:
        return bool(self.digests) and self.digest(user) in self.digests

    def digest(self, user: bytes) -> str:
        """32 hex characters by which this lake knows a forgotten user."""
        return hashlib.blake2b(user, digest_size=16, key=self._salt).hexdigest()

    def add(self, users: Iterable[bytes]) -> None:
        """The users are on the list, on disk."""
        self._write(self.digests | {self.digest(user) for user in users})

    def lift(self, users: Iterable[bytes]) -> int:
        """The users are not on the list; how many were. The next full refresh may read them again."""
        lifted = self.digests & {self.digest(user) for user in users}
        if lifted:
            self._write(self.digests - lifted)
        return len(lifted)

    def _write(self, digests: set[str]) -> None:
        told = json.dumps({"salt": self._salt.hex(), "digests": sorted(digests)})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False) as scratch:
                scratch.write(told)
                scratch.flush()
                os.fsync(scratch.fileno())
            os.replace(scratch.name, self._path)
        except OSError as error:
            raise LakeError(
                f"{self._path} cannot be written ({error}). Nothing was removed; make room or mend the "
                "permission, then run it again."
            ) from error
        self.digests = digests
