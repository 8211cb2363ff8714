"""Rows of anchor views as they stand in an online store, and the judgement of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any

from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import Answer, Ask
from qanchor_plugin.declare import Profile, Scenario
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.identity import is_of_scenario, scenario_identity
from qanchor_plugin.prefix_store.pushed import PushedMark

STATUS, DATA_AS_OF = "status", "data_as_of"
STORED, COMPUTED, STALE, UNKNOWN, MISSING = "stored", "computed", "stale", "unknown", "missing"
JUDGED_BY = (S.EMBEDDING, S.EMBEDDING_ID, S.CUTOFF)
"""Read along with whatever was requested."""

_STORED = Value(string_val=STORED)
MICROS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENTITY_KEY_VERSION = 3

OnlineRow = tuple[datetime | None, dict[str, Value] | None]
WriteRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class Verdict(Enum):
    """What a stored row is worth."""

    FRESH = "fresh"
    STALE = "stale"
    FOREIGN = "foreign"
    MISSING = "missing"
    BEHIND = "behind"
    """Lacks a pushed event, and the view says to serve it and recompute behind."""


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One version of one scenario, as the view that was asked for declares it."""

    scenario: Scenario
    profile: Profile
    scenario_id: str

    @classmethod
    def of(cls, view: FeatureView) -> "Anchor":
        """The declaration that stands in the view's own source: ``view@v1`` has that version's.

        Raises:
            DeclarationError: its engine was never resolved.
        """
        source = view.batch_source
        if not isinstance(source, AnchorSource):
            raise DeclarationError(
                f"feature view {view.name!r} is not an anchor view; make it by anchor_view()."
            )
        known = getattr(source, "_anchor", None)
        if known is None:
            known = cls._made(source)
            source._anchor = known  # type: ignore[attr-defined]  # the source's JSON never changes once read
        return known

    @cached_property
    def sequence_digests(self) -> tuple[str, ...]:
        """Of the profile's modalities: where pushed events of it are looked for."""
        return tuple(modality.sequence_digest for modality in self.profile.modalities)

    @cached_property
    def max_age(self) -> float | None:
        """The scenario's ttl in microseconds; None for one that does not age."""
        return self.scenario.ttl / timedelta(microseconds=1) if self.scenario.ttl else None

    @classmethod
    def _made(cls, source: AnchorSource) -> "Anchor":
        scenario, profile = source.scenario, source.profile
        if scenario.engine_digest is None:
            raise DeclarationError(f"scenario {scenario.name!r} has no resolved engine yet; run feast apply.")
        identity = scenario_identity(
            profile_digest=profile.digest,
            engine_digest=scenario.engine_digest,
            query=scenario.query,
            soft_prompt_digest=scenario.soft_prompt_digest,
        )
        return cls(scenario=scenario, profile=profile, scenario_id=identity)

    def ask(self, default_engine: str) -> Ask:
        """The question as a backend is asked it."""
        return Ask.of(
            self.scenario, self.profile, scenario_id=self.scenario_id, default_engine=default_engine
        )


class UserKeys(Sequence[bytes]):
    """Serialised entity keys, each made when it is first looked at: a row that is a hit needs none."""

    def __init__(self, keys: Sequence[EntityKey]) -> None:
        self._keys = keys
        self._made: list[bytes | None] = [None] * len(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        made = self._made[row]
        if made is None:
            made = self._made[row] = entity_user(self._keys[row])
        return made


@dataclass(kw_only=True)
class AnchorRead:
    """One anchor view of one request, and the rows read for it.

    Attributes:
        requested: feature names asked for.
        keys, users: distinct entity keys, as protos and serialised.
        indexes: for each of them, its rows of the response.
        num_rows: rows of the response.
        rows: (event timestamp, features) for each key: as read, then as answered.
        marks: what has been pushed of those users that have pushed events, when the read began.
    """

    view: FeatureView
    anchor: Anchor
    requested: tuple[str, ...]
    keys: list[EntityKey]
    users: Sequence[bytes]
    indexes: Sequence[list[int]]
    num_rows: int
    rows: list[OnlineRow] = field(default_factory=list)
    marks: dict[bytes, PushedMark] = field(default_factory=dict)

    @property
    def wanted(self) -> list[str]:
        """Features to read: those requested and those it is judged by; a fresh list each time."""
        return list(_wanted(self.requested))


@lru_cache(maxsize=256)
def _wanted(requested: tuple[str, ...]) -> tuple[str, ...]:
    answered_here = {STATUS, DATA_AS_OF}
    return tuple(dict.fromkeys([*JUDGED_BY, *(one for one in requested if one not in answered_here)]))


def judge(row: OnlineRow, anchor: Anchor, *, now: int, complete_to: int | None) -> tuple[Verdict, int | None]:
    """What a row is worth, and the instant (microseconds) up to which its data are complete.

    A row's presence proves nothing (Redis says PRESENT of a missing one): an empty embedding is missing.

    Args:
        now: microseconds since 1970 UTC.
        complete_to: the scenario's watermark, or None.
    """
    features = row[1] or {}
    embedding = features.get(S.EMBEDDING)
    if embedding is None or not embedding.float_list_val.val:
        return Verdict.MISSING, None
    stored_id = features.get(S.EMBEDDING_ID)
    if stored_id is None or not is_of_scenario(stored_id.string_val, anchor.scenario_id):
        return Verdict.FOREIGN, None
    stored_cutoff = features.get(S.CUTOFF)
    cutoff = 0 if stored_cutoff is None else stored_cutoff.unix_timestamp_val * MICROS
    as_of = max(cutoff, complete_to or 0)
    if anchor.max_age is not None and now - as_of > anchor.max_age:
        return Verdict.STALE, as_of
    return Verdict.FRESH, as_of


def with_status(features: dict[str, Value], status: str, data_as_of: int | None) -> dict[str, Value]:
    """The same features with both answered fields set."""
    return {**features, STATUS: Value(string_val=status), **_instant(DATA_AS_OF, data_as_of)}


def stored_row(read: AnchorRead, row: int, data_as_of: int | None) -> OnlineRow:
    """A fresh row as it is served: as read, and of the two answered fields those that were asked for."""
    stored_at, features = read.rows[row]
    features = features or {}
    if STATUS in read.requested:
        features[STATUS] = _STORED
    if DATA_AS_OF in read.requested:
        features.update(_instant(DATA_AS_OF, data_as_of))
    return stored_at, features


def answer_features(answer: Answer, status: str) -> dict[str, Value]:
    """A backend's answer as the features of an anchor view."""
    return {
        S.EMBEDDING: Value(float_list_val=FloatList(val=answer.embedding.tolist())),
        S.EMBEDDING_ID: Value(string_val=answer.embedding_id),
        S.CUTOFF: Value(unix_timestamp_val=answer.cutoff // MICROS),
        **_instant(S.AS_OF, answer.as_of),
        S.NUM_EVENTS: Value(int64_val=answer.num_events),
        STATUS: Value(string_val=status),
        DATA_AS_OF: Value(unix_timestamp_val=answer.cutoff // MICROS),
    }


def entity_user(key: EntityKey) -> bytes:
    """The serialised entity key: ``user`` of the lake."""
    return serialize_entity_key(key, entity_key_serialization_version=ENTITY_KEY_VERSION)


def micros_of(instant: datetime) -> int:
    """Microseconds since 1970 UTC."""
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * MICROS + since.microseconds


def instant_of(micros: int) -> datetime:
    """The UTC instant."""
    return _EPOCH + timedelta(microseconds=micros)


def _instant(name: str, micros: int | None) -> dict[str, Any]:
    return {} if micros is None else {name: Value(unix_timestamp_val=micros // MICROS)}
