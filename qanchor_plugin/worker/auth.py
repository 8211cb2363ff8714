"""Who may ask: bearer tokens, compared in constant time."""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.flight as flight

from qanchor_plugin.backend.wire import AUTHORIZATION, flight_error
from qanchor_plugin.errors import DeclarationError, UnauthenticatedError

_SCHEME = "bearer "


class Tokens:
    """The accepted tokens; without any, everyone may ask.

    Args:
        file: one token a line, blank lines and lines of ``#`` aside; "" for none.
        others: further tokens.

    Raises:
        DeclarationError: the file cannot be read, or holds no token.
    """

    def __init__(self, file: str, others: Iterable[str] = ()) -> None:
        self._file, self._others = file, [one.encode() for one in others if one]
        self._accepted: Sequence[bytes] = ()
        self.reload()

    def reload(self) -> None:
        """The file's tokens of this moment are the accepted ones: old and new stand in it while they change.

        Raises:
            DeclarationError: as above; those accepted before stay.
        """
        self._accepted = [*self._others, *(_read(Path(self._file)) if self._file else [])]

    @property
    def required(self) -> bool:
        """Whether a caller needs one."""
        return bool(self._accepted)

    def accepts(self, header: str | bytes | None) -> bool:
        """Whether an ``authorization`` header carries an accepted token; every one is compared."""
        if not self.required:
            return True
        given = header.decode("latin-1") if isinstance(header, bytes) else header or ""
        if given[: len(_SCHEME)].lower() != _SCHEME:
            return False
        token = given[len(_SCHEME) :].strip().encode()
        matches = [hmac.compare_digest(token, one) for one in self._accepted]
        return any(matches)


def _read(file: Path) -> list[bytes]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"the token file {file} cannot be read ({error}).") from error
    tokens = [line.strip().encode() for line in lines if line.strip() and not line.startswith("#")]
    if not tokens:
        raise DeclarationError(f"the token file {file} holds no token; write one a line.")
    return tokens


class TokenCheck(flight.ServerMiddlewareFactory):
    """Refuses a call before its rows are read."""

    def __init__(self, tokens: Tokens, refused: Any) -> None:
        super().__init__()
        self._tokens, self._refused = tokens, refused

    def start_call(self, info: Any, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """None (no middleware of its own), where the caller is known.

        Raises:
            FlightUnauthenticatedError: no token, or none of ours.
        """
        given = next((values for name, values in headers.items() if name.lower() == AUTHORIZATION), [None])
        if self._tokens.accepts(given[0]):
            return
        self._refused()
        said = "the token is not one of this worker's" if given[0] else "this worker wants a bearer token"
        raise flight_error(
            UnauthenticatedError(f"{said}. Give the caller the token that the worker was started with.")
        )
