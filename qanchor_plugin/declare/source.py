"""A behaviour source as a plain record, so that nothing below Feast needs Feast."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from qanchor_plugin.declare.checks import reject_unknown_keys
from qanchor_plugin.errors import DeclarationError


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """Where a modality's rows are read, and which of their columns carry time.

    Attributes:
        name: the Feast data source's name.
        path / table / query: exactly one is set: a folder, a catalogue table, or Spark SQL.
        format: how a ``path`` is read: ``delta``, ``parquet``, ``csv`` and so on.
        event_at: column of the instant of the event ("" for a static source).
        known_at: column of the instant we first could have known the row, or "".
        field_mapping: source column to the name used in templates and entity keys.
        proto: the Feast source as serialised protobuf, base64; "" when made without Feast.
    """

    name: str
    path: str = ""
    table: str = ""
    query: str = ""
    format: str = "delta"
    event_at: str
    known_at: str = ""
    field_mapping: Mapping[str, str] = field(default_factory=dict)
    proto: str = ""

    def __post_init__(self) -> None:
        named = [kind for kind in ("path", "table", "query") if getattr(self, kind)]
        if len(named) != 1:
            raise DeclarationError(
                f"source {self.name!r} names {named or 'no place'} to read from; "
                "give exactly one of path, table or query."
            )

    @classmethod
    def of(cls, source: Any) -> "SourceSpec":
        """The record of a Feast ``SparkSource`` (or of a record already made).

        Raises:
            DeclarationError: the object is not a source that Spark can read.
        """
        if isinstance(source, SourceSpec):
            return source
        if not hasattr(source, "to_proto") or not hasattr(source, "timestamp_field"):
            raise DeclarationError(
                f"a modality's source must be a Feast SparkSource, not {type(source).__name__}. "
                "Use SparkSource(path=..., table_format=DeltaFormat(), timestamp_field=...)."
            )
        if not any(hasattr(source, kind) for kind in ("path", "table", "query")):
            raise DeclarationError(
                f"source {source.name!r} is a {type(source).__name__}, which Spark cannot read here. "
                "Use a Feast SparkSource."
            )
        table_format = getattr(source, "table_format", None)
        file_format = str(getattr(source, "file_format", "") or "")
        return cls(
            name=source.name,
            path=getattr(source, "path", "") or "",
            table=getattr(source, "table", "") or "",
            query=getattr(source, "query", "") or "",
            format=_format_name(table_format) or file_format or "delta",
            event_at=source.timestamp_field or "",
            known_at=source.created_timestamp_column or "",
            field_mapping=dict(source.field_mapping or {}),
            proto=_serialised(source),
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values; ``from_dict`` reads it back equal."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "SourceSpec":
        """The record that ``to_dict`` wrote; unknown keys are a DeclarationError."""
        reject_unknown_keys("source", given, set(cls.__dataclass_fields__))
        return cls(**given)


def _serialised(source: Any) -> str:
    proto = source.to_proto()
    proto.ClearField("meta")  # when the object was made: would differ on every import of the repo
    return base64.b64encode(proto.SerializeToString(deterministic=True)).decode()


def _format_name(table_format: Any) -> str:
    format_type = getattr(table_format, "format_type", None)
    return str(getattr(format_type, "value", format_type) or "")
