"""``push_view``: raw behaviour rows come in by ``store.push``, as a plain Feast feature view.

Feast asks a pushed frame for the columns of every view over the push source, so an anchor view cannot
stand there itself: its ``embedding`` is no column of a raw row.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from feast import FeatureView, Field
from feast.data_source import DataSource, PushSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.types import UnixTimestamp, from_value_type
from feast.value_type import ValueType

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.declare.checks import reject_unknown_keys
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.custom_proto import custom_proto

TIMESTAMP_FIELD = "event_timestamp"
_CLASS_TYPE = "qanchor_plugin.feast_ext.push_view.PushedSource"


def push_view(
    source: PushSource, profiles: Profile | Sequence[Profile], *, name: str | None = None, owner: str = ""
) -> FeatureView:
    """A feature view through which ``store.push(source.name, rows)`` brings events to anchor views.

    Args:
        source: its ``batch_source`` is the source object of one modality or more.
        profiles: whose modalities over that source get the rows; name every profile that has one.
        name: the view's; by default the push source's with ``_events``.
        owner: who answers for it.

    Raises:
        DeclarationError: no modality reads the batch source, or its rows have no time.
    """
    given = [profiles] if isinstance(profiles, Profile) else list(profiles)
    targets = _targets(source, given)
    stored = PushedSource(source.name, targets, owner=owner)
    first = next(iter(targets.values()))
    view = FeatureView(
        name=name or f"{source.name}_events",
        source=stored,
        schema=_raw_columns(*first),
        online=False,
        description=f"Raw rows of {first[0].source.name}, pushed to modalities "
        f"{', '.join(sorted({modality.name for modality, _ in targets.values()}))}.",
        owner=owner,
    )
    view.stream_source = source
    return view


def is_push_view(view: Any) -> bool:
    """Whether a Feast object is a feature view declared by :func:`push_view`."""
    return isinstance(view, FeatureView) and isinstance(view.batch_source, PushedSource)


def raw_name(source: SourceSpec, column: str) -> str:
    """The source's own name of a column that ``field_mapping`` renames."""
    return {new: old for old, new in source.field_mapping.items()}.get(column, column)


def same_place(one: SourceSpec, other: SourceSpec) -> bool:
    """Whether two records are of the same source, whenever its Feast object was made."""
    return {**one.to_dict(), "proto": ""} == {**other.to_dict(), "proto": ""}


Targets = Mapping[str, tuple[Modality, tuple[EntityRef, ...]]]
"""By sequence digest: the modality that a raw row belongs to, and whose rows they are."""


def _targets(source: PushSource, profiles: Sequence[Profile]) -> Targets:
    spec = SourceSpec.of(source.batch_source)
    found: dict[str, tuple[Modality, tuple[EntityRef, ...]]] = {}
    for profile in profiles:
        for modality in profile.modalities:
            if same_place(modality.source, spec):
                found[modality.sequence_digest] = modality, profile.entities
    names = [profile.name for profile in profiles]
    if not found:
        raise DeclarationError(
            f"push source {source.name!r} is over {spec.name!r}, which no modality of the "
            f"profiles {names} reads. Give PushSource(batch_source=...) the modality's own source object."
        )
    static = [modality.name for modality, _ in found.values() if modality.static]
    if static:
        raise DeclarationError(
            f"push source {source.name!r}: modalities {static} are static, so their rows have no time to be "
            "pushed at. Give the source a timestamp_field, or let the refresh bring them."
        )
    return found


def _raw_columns(modality: Modality, entities: Sequence[EntityRef]) -> list[Field]:
    """Keys and time, under the source's names: Feast refuses a frame without them.

    The other columns are checked by us: Feast passes over a frame whose declared columns are all null.
    """
    source = modality.source
    keys = [
        Field(
            name=raw_name(source, entity.join_key),
            dtype=from_value_type(ValueType[entity.value_type]),
            description=f"join key of {entity.name}",
        )
        for entity in entities
    ]
    return [*keys, Field(name=source.event_at, dtype=UnixTimestamp, description="when it happened")]


class PushedSource(DataSource):
    """What the registry keeps of a push view: the modalities whose rows are pushed, as JSON.

    Attributes:
        push: the push source's name.
        targets: see :data:`Targets`.
    """

    def __init__(
        self,
        push: str,
        targets: Targets,
        *,
        name: str | None = None,
        timestamp_field: str = TIMESTAMP_FIELD,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
    ) -> None:
        super().__init__(
            name=name or f"qanchor_{push}",
            timestamp_field=timestamp_field,
            description=description,
            tags=tags,
            owner=owner,
        )
        self.push = push
        self.targets = dict(targets)

    @property
    def spec(self) -> SourceSpec:
        """The raw rows' own source."""
        return next(iter(self.targets.values()))[0].source

    def source_type(self) -> "DataSourceProto.SourceType.ValueType":
        """Custom source: Feast finds this class by the dotted path in the proto."""
        return DataSourceProto.CUSTOM_SOURCE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PushedSource) and super().__eq__(other) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return super().__hash__()

    def to_json(self) -> str:
        """The declaration as JSON text, the same for every import of the same repo."""
        targets = [
            {"modality": modality.to_dict(), "entities": [entity.to_dict() for entity in entities]}
            for _, (modality, entities) in sorted(self.targets.items())
        ]
        return json.dumps({"push": self.push, "targets": targets}, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Only names of columns are asked for; their types are Arrow's."""
        return lambda name: ValueType.UNKNOWN

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """(column, Arrow type) of the table that an offline push appends to.

        Raises:
            DeclarationError: it is not a Delta folder.
        """
        from qanchor_plugin.feast_ext.push_offline import appendable

        return [(field.name, str(field.type)) for field in appendable(self.spec)]

    def validate(self, config: RepoConfig) -> None:
        """Nothing when rows can be pushed.

        Raises:
            DeclarationError: the source's types cannot be read, or the views do not fit (``push_checks``).
        """
        from qanchor_plugin.feast_ext.push_checks import check_push_views
        from qanchor_plugin.feast_ext.push_columns import source_types
        from qanchor_plugin.feast_ext.repo_objects import repo_views

        source_types(self.spec)
        check_push_views(repo_views(config))

    def get_table_query_string(self) -> str:
        """Never answers: the rows themselves are read from their own source.

        Raises:
            DeclarationError: always, naming that source.
        """
        raise DeclarationError(
            f"a push view is written, not read: its rows go to anchor views. Read {self.spec.name!r} instead."
        )

    def _to_proto_impl(self) -> DataSourceProto:
        return custom_proto(self, _CLASS_TYPE, self.to_json())

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> "PushedSource":
        """The source that ``to_proto`` wrote; unknown keys are a DeclarationError."""
        given = json.loads(data_source.custom_options.configuration)
        reject_unknown_keys(f"pushed source {data_source.name!r}", given, {"push", "targets"})
        targets = {}
        for one in given["targets"]:
            modality = Modality.from_dict(one["modality"])
            targets[modality.sequence_digest] = modality, tuple(EntityRef(**ref) for ref in one["entities"])
        return PushedSource(
            given["push"],
            targets,
            name=data_source.name,
            timestamp_field=data_source.timestamp_field,
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )
