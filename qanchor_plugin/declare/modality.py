"""One kind of behaviour: a source table, and how its rows read as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal

from qanchor_plugin.declare.checks import raise_faults, reject_unknown_keys, slug_faults
from qanchor_plugin.declare.source import SourceSpec
from qanchor_plugin.identity import digest

MAX_AMOUNTS = 2
"""Group tokens carry this many summed amounts; see engine/hierarchy."""

_KINDS = ("events", "tabular")


@dataclass(frozen=True, init=False)
class Modality:
    """A kind of event, one source table (Query-as-Anchor §2.1: bill, mini, spm, app, search...).

    Attributes:
        name: slug; the engine keeps an adapter for each name it was built with.
        source: where the rows stand.
        text: a format over the source's columns, such as ``"{brand} {product_type}"``. Nulls render
            as nothing, and the spaces around them close up.
        group_by: columns whose values form groups; each group gets a token with its counts.
        amounts: numeric columns summed by group, two at most.
        max_events: newest events kept as event tokens.
        kind: ``events``, or ``tabular`` (the latest row describes the user; no window).
        static: the source has no time: always visible, and reported as not point-in-time.
    """

    name: str
    source: SourceSpec
    text: str
    group_by: tuple[str, ...]
    amounts: tuple[str, ...]
    max_events: int
    kind: Literal["events", "tabular"]
    static: bool

    def __init__(
        self,
        name: str,
        source: Any,
        text: str,
        *,
        group_by: Sequence[str] = (),
        amounts: Sequence[str] = (),
        max_events: int = 64,
        kind: Literal["events", "tabular"] = "events",
        static: bool = False,
    ) -> None:
        values = {
            "name": name,
            "source": SourceSpec.of(source),
            "text": text,
            "group_by": tuple(group_by),
            "amounts": tuple(amounts),
            "max_events": max_events,
            "kind": kind,
            "static": static,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)
        raise_faults(self._faults())

    def _faults(self) -> list[str]:
        faults = slug_faults("modality", self.name)
        where = f"modality {self.name!r}"
        if self.kind not in _KINDS:
            faults.append(f"{where}: kind {self.kind!r} is not one of {list(_KINDS)}.")
        faults += self._template_faults(where)
        if len(self.amounts) > MAX_AMOUNTS:
            faults.append(f"{where}: {len(self.amounts)} amounts given, at most {MAX_AMOUNTS} are used.")
        if self.max_events < 1:
            faults.append(f"{where}: max_events is {self.max_events}, it must be 1 or more.")
        if self.kind == "tabular" and (self.group_by or self.amounts):
            faults.append(f"{where}: a tabular modality has no group_by and no amounts.")
        if self.static and self.kind != "tabular":
            faults.append(f"{where}: static=True is only for kind='tabular'; events need a time.")
        if not self.static and not self.source.event_at:
            faults.append(
                f"{where}: source {self.source.name!r} has no timestamp_field. Set it, or declare "
                "kind='tabular', static=True if the rows have no time."
            )
        return faults

    def _template_faults(self, where: str) -> list[str]:
        try:
            columns = self.text_columns
        except ValueError as error:
            return [f"{where}: text {self.text!r} is not a format string ({error})."]
        if not columns:
            return [f"{where}: text {self.text!r} names no column; write one as {{column}}."]
        odd = [column for column in columns if not column.isidentifier()]
        return [f"{where}: text names {odd}, which are not plain column names."] if odd else []

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that ``text`` names, in order of first use."""
        fields = [name for _, name, _, _ in Formatter().parse(self.text) if name is not None]
        return tuple(dict.fromkeys(fields))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column read besides the keys and the times, without repeats."""
        return tuple(dict.fromkeys((*self.text_columns, *self.group_by, *self.amounts)))

    @property
    def sequence_digest(self) -> str:
        """Identity of the sequences this modality is rendered into.

        Changes with whatever changes a stored row; ``max_events`` acts only when slicing.
        """
        source = self.source.to_dict()
        source.pop("proto")
        return digest(
            "modality", self.name, source, self.text, self.group_by, self.amounts, self.kind, self.static
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values; ``from_dict`` reads it back equal."""
        return {
            "name": self.name,
            "source": self.source.to_dict(),
            "text": self.text,
            "group_by": list(self.group_by),
            "amounts": list(self.amounts),
            "max_events": self.max_events,
            "kind": self.kind,
            "static": self.static,
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Modality":
        """The record that ``to_dict`` wrote; unknown keys are a DeclarationError."""
        reject_unknown_keys("modality", given, set(cls.__dataclass_fields__))
        return cls(**{**given, "source": SourceSpec.from_dict(given["source"])})
