"""The named set of modalities and limits that describe a user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from qanchor_plugin.declare.checks import raise_faults, reject_unknown_keys, slug_faults
from qanchor_plugin.declare.modality import Modality
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.identity import digest

DEFAULT_WINDOW = timedelta(days=90)
DEFAULT_MAX_TOKENS = 1024
DEFAULT_MAX_GROUPS = 72


@dataclass(frozen=True, kw_only=True)
class EntityRef:
    """A Feast entity as a plain record: its name, its join key, and the key's Feast value type."""

    name: str
    join_key: str
    value_type: str

    @classmethod
    def of(cls, entity: Any) -> "EntityRef":
        """The record of a Feast ``Entity`` (or of a record already made)."""
        if isinstance(entity, EntityRef):
            return entity
        if not hasattr(entity, "join_key") or not hasattr(entity, "value_type"):
            raise DeclarationError(f"a profile's entity must be a Feast Entity, not {type(entity).__name__}.")
        value_type = getattr(entity.value_type, "name", str(entity.value_type))
        if value_type == "UNKNOWN":
            raise DeclarationError(
                f"entity {entity.name!r} has no value_type; write Entity(..., value_type=ValueType.INT64)."
            )
        return cls(name=entity.name, join_key=entity.join_key, value_type=value_type)

    def to_dict(self) -> dict[str, str]:
        """The record as JSON-like values."""
        return {"name": self.name, "join_key": self.join_key, "value_type": self.value_type}


@dataclass(frozen=True, init=False)
class Profile:
    """Which behaviour describes a user, and how much of it.

    Attributes:
        name: slug; one body only for each name.
        entities: one, or several for a composite key.
        modalities: coarse order of the prefix; names must differ.
        window: an event is visible for this long (None: for ever).
        max_tokens: most soft tokens a prefix may hold, template not counted.
        max_groups: most group tokens, highest by count / (1 + age / 60 days).
    """

    name: str
    entities: tuple[EntityRef, ...]
    modalities: tuple[Modality, ...]
    window: timedelta | None
    max_tokens: int
    max_groups: int

    def __init__(
        self,
        name: str,
        entity: Any,
        modalities: Sequence[Modality],
        *,
        window: timedelta | None = DEFAULT_WINDOW,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        max_groups: int = DEFAULT_MAX_GROUPS,
    ) -> None:
        entities = entity if isinstance(entity, list | tuple) else (entity,)
        values = {
            "name": name,
            "entities": tuple(EntityRef.of(one) for one in entities),
            "modalities": tuple(modalities),
            "window": window,
            "max_tokens": max_tokens,
            "max_groups": max_groups,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)
        raise_faults(self._faults())

    def _faults(self) -> list[str]:
        faults = slug_faults("profile", self.name)
        where = f"profile {self.name!r}"
        names = [modality.name for modality in self.modalities]
        if not names:
            faults.append(f"{where} has no modality; give one at least.")
        if len(set(names)) < len(names):
            faults.append(f"{where} names a modality twice: {names}.")
        if not self.entities:
            faults.append(f"{where} has no entity.")
        if self.window is not None and self.window <= timedelta(0):
            faults.append(f"{where}: window is {self.window}; it must be positive, or None.")
        summary_tokens = 1 + 3 * len(names)
        if self.max_tokens < summary_tokens:
            faults.append(
                f"{where}: max_tokens is {self.max_tokens}; user and modality tokens alone "
                f"need {summary_tokens}."
            )
        if self.max_groups < 0:
            faults.append(f"{where}: max_groups is {self.max_groups}; it must be 0 or more.")
        return faults

    @property
    def join_keys(self) -> tuple[str, ...]:
        """The join keys of the entities, in declared order."""
        return tuple(entity.join_key for entity in self.entities)

    @property
    def event_modalities(self) -> tuple[Modality, ...]:
        """Modalities whose rows are events."""
        return tuple(m for m in self.modalities if m.kind == "events")

    @property
    def tabular_modalities(self) -> tuple[Modality, ...]:
        """Modalities whose latest row describes the user."""
        return tuple(m for m in self.modalities if m.kind == "tabular")

    @cached_property
    def digest(self) -> str:
        """Identity of everything that the profile says, sources' protobuf bytes aside."""
        body = self.to_dict()
        for modality in body["modalities"]:
            modality["source"].pop("proto")
        return digest("profile", body)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values; ``from_dict`` reads it back equal."""
        return {
            "name": self.name,
            "entities": [entity.to_dict() for entity in self.entities],
            "modalities": [modality.to_dict() for modality in self.modalities],
            "window_seconds": None if self.window is None else self.window.total_seconds(),
            "max_tokens": self.max_tokens,
            "max_groups": self.max_groups,
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Profile":
        """The record that ``to_dict`` wrote; unknown keys are a DeclarationError."""
        reject_unknown_keys(
            "profile",
            given,
            {"name", "entities", "modalities", "window_seconds", "max_tokens", "max_groups"},
        )
        seconds = given["window_seconds"]
        return cls(
            given["name"],
            [EntityRef(**entity) for entity in given["entities"]],
            [Modality.from_dict(modality) for modality in given["modalities"]],
            window=None if seconds is None else timedelta(seconds=seconds),
            max_tokens=given["max_tokens"],
            max_groups=given["max_groups"],
        )
