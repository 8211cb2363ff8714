"""The JSON header of a request: what is asked, of which kind, by when."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from qanchor_plugin.backend.protocol import Ask
from qanchor_plugin.declare import Profile
from qanchor_plugin.declare.checks import reject_unknown_keys
from qanchor_plugin.errors import DeclarationError, InputDataError

VERSION = 1
MAX_HEADER_BYTES = 1024 * 1024
MAX_REQUEST_ID_CHARS = 128
KINDS = ("users", "prefixes")
PRIORITIES = ("online", "batch")

_KEYS = {"version", "kind", "profiles", "asks", "cutoff", "priority", "deadline_ms", "request_id"}
_ASK_KEYS = {one.name for one in fields(Ask)}


@dataclass(frozen=True, kw_only=True)
class Header:
    """One request to a worker, its rows aside.

    Attributes:
        kind: ``users`` (keys in, the worker reads the lake) or ``prefixes`` (soft tokens in).
        asks: the queries; every row is put to all of them.
        cutoff: microseconds since 1970 UTC, for kind ``users``; prefixes carry one each.
        priority: ``online`` goes before ``batch``.
        deadline_ms: milliseconds left when it was sent; afterwards nobody waits for the answer.
        request_id: appears in both sides' logs.
    """

    kind: str
    asks: tuple[Ask, ...]
    cutoff: int | None = None
    priority: str = "online"
    deadline_ms: int
    request_id: str

    def __post_init__(self) -> None:
        faults = [fault for fault in self._faults() if fault]
        if faults:
            raise InputDataError("a worker cannot accept this request: " + " ".join(faults))

    def _faults(self) -> list[str]:
        users = self.kind == "users"
        return [
            "" if self.kind in KINDS else f"kind is {self.kind!r}; accepted are {list(KINDS)}.",
            "" if self.asks else "it asks nothing; give one query at least.",
            "" if self.priority in PRIORITIES else f"priority is {self.priority!r}, not of {PRIORITIES}.",
            "" if _is_count(self.deadline_ms) else f"deadline_ms is {self.deadline_ms!r}; give 1 or more.",
            "" if not users or _is_int(self.cutoff) else f"cutoff is {self.cutoff!r}; give microseconds.",
            "" if users or self.cutoff is None else "prefixes carry their cutoffs; the header has one too.",
            ""
            if isinstance(self.request_id, str) and 0 < len(self.request_id) <= MAX_REQUEST_ID_CHARS
            else f"request_id must be text of 1 to {MAX_REQUEST_ID_CHARS} characters.",
        ]

    def to_bytes(self) -> bytes:
        """The descriptor's command; each profile stands in it once.

        Raises:
            InputDataError: it is larger than ``MAX_HEADER_BYTES``.
        """
        profiles = {ask.profile.digest: ask.profile for ask in self.asks}
        place = {digest: number for number, digest in enumerate(profiles)}
        body = {
            "version": VERSION,
            "kind": self.kind,
            "profiles": [json.dumps(one.to_dict(), sort_keys=True) for one in profiles.values()],
            "asks": [_ask_to_dict(ask, place[ask.profile.digest]) for ask in self.asks],
            "cutoff": self.cutoff,
            "priority": self.priority,
            "deadline_ms": self.deadline_ms,
            "request_id": self.request_id,
        }
        made = json.dumps(body).encode()
        _check_size(made)
        return made

    @classmethod
    def from_bytes(cls, given: bytes) -> "Header":
        """The header that ``to_bytes`` wrote.

        Raises:
            InputDataError: too large, not JSON, of another version, unknown keys, or values that no
                request can have.
        """
        _check_size(given)
        body = _parsed(given)
        if body.get("version") != VERSION:
            raise InputDataError(
                f"the request speaks version {body.get('version')!r}, this worker {VERSION}. "
                "Run the same release of qanchor on both sides."
            )
        try:
            reject_unknown_keys("request", body, _KEYS)
            profiles = [_profile(text) for text in body["profiles"]]
            return cls(
                kind=body["kind"],
                asks=tuple(_ask_from_dict(one, profiles) for one in body["asks"]),
                cutoff=body["cutoff"],
                priority=body["priority"],
                deadline_ms=body["deadline_ms"],
                request_id=body["request_id"],
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, DeclarationError) as error:
            raise InputDataError(
                f"the request's header cannot be read ({type(error).__name__}: {error}). "
                "Run the same release of qanchor on both sides."
            ) from error


def _check_size(made: bytes) -> None:
    if len(made) > MAX_HEADER_BYTES:
        raise InputDataError(
            f"the request's header has {len(made):,} bytes, at most {MAX_HEADER_BYTES:,} are read. "
            "Ask fewer queries at a time."
        )


def _parsed(given: bytes) -> dict[str, Any]:
    try:
        body = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise InputDataError("the request's header is not JSON. Ask a worker through qanchor.") from error
    if not isinstance(body, dict):
        raise InputDataError(f"the request's header is a JSON {type(body).__name__}, not an object.")
    return body


def _ask_to_dict(ask: Ask, profile: int) -> dict[str, Any]:
    return {name: profile if name == "profile" else getattr(ask, name) for name in sorted(_ASK_KEYS)}


def _ask_from_dict(given: Mapping[str, Any], profiles: list[Profile]) -> Ask:
    reject_unknown_keys("request, asks", given, _ASK_KEYS)
    values = dict(given)
    place = values.pop("profile")
    if not _is_int(place) or place < 0:
        raise ValueError(f"profile {place!r} of an ask is not a number")
    for name, value in values.items():
        if not isinstance(value, str) and (value is not None or name in ("query", "engine")):
            raise ValueError(f"{name} of an ask is {value!r}, not text")
    return Ask(profile=profiles[place], **values)


@lru_cache(maxsize=64)
def _profile(text: str) -> Profile:
    return Profile.from_dict(json.loads(text))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_count(value: Any) -> bool:
    return _is_int(value) and 1 <= value < 2**31
