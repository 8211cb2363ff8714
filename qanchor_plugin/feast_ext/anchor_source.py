"""The Feast data source that carries one declared scenario through the registry.

Feast keeps no subclass of FeatureView, but it keeps a custom data source with its bytes. The bytes are
JSON of the scenario and its profile with sorted keys, so that importing a repo twice gives the same ones.
"""

import json
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.types import Array, FeastType, Float32, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from qanchor_plugin.declare import Profile, Scenario
from qanchor_plugin.declare.checks import reject_unknown_keys
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.custom_proto import custom_proto

TIMESTAMP_FIELD = "event_timestamp"
"""When a stored embedding was made (``served_at`` of the lake); Feast wants one for every source."""

FIELD_TYPES: dict[str, FeastType] = {
    "embedding": Array(Float32),
    "embedding_id": String,
    "cutoff": UnixTimestamp,
    "as_of": UnixTimestamp,
    "num_events": Int64,
    "status": String,
    "data_as_of": UnixTimestamp,
}
"""The features of every anchor view, in order."""

_CLASS_TYPE = "qanchor_plugin.feast_ext.anchor_source.AnchorSource"


def source_name(scenario: str) -> str:
    """The data source's name: not the scenario's own, which a behaviour table may bear."""
    return f"qanchor_{scenario}"


class AnchorSource(DataSource):
    """Where a scenario's embeddings come from: the engine, over the profile's behaviour.

    Attributes:
        scenario: the declared scenario; its engine is None until frozen at apply.
        profile: the whole declared profile.
        declared_engine: what the person wrote, None for the store's default. Not kept by the registry.
    """

    def __init__(
        self,
        scenario: Scenario,
        profile: Profile,
        *,
        name: str | None = None,
        timestamp_field: str = TIMESTAMP_FIELD,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
    ) -> None:
        if scenario.profile != profile.name:
            raise DeclarationError(
                f"scenario {scenario.name!r} is of profile {scenario.profile!r}, "
                f"but profile {profile.name!r} was given with it."
            )
        super().__init__(
            name=name or source_name(scenario.name),
            timestamp_field=timestamp_field,
            description=description,
            tags=tags,
            owner=owner,
        )
        self.scenario = scenario
        self.profile = profile
        self.declared_engine = scenario.engine
        self._view: weakref.ReferenceType[FeatureView] | None = None

    @property
    def view(self) -> FeatureView | None:
        """The feature view declared over this source in this process; None for one from a registry."""
        return None if self._view is None else self._view()

    def bind(self, view: FeatureView) -> None:
        """Afterwards, freezing the engine also writes the digests into this view's field tags."""
        self._view = weakref.ref(view)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_view": None}

    def source_type(self) -> "DataSourceProto.SourceType.ValueType":
        """Custom source: Feast finds this class by the dotted path in the proto."""
        return DataSourceProto.CUSTOM_SOURCE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnchorSource) and super().__eq__(other) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return super().__hash__()

    def to_json(self) -> str:
        """The declaration as JSON text, the same for every import of the same repo."""
        body = {"scenario": self.scenario.to_dict(), "profile": self.profile.to_dict()}
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Our column types are the names of Feast's value types."""
        return lambda name: ValueType[name]

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """(column, name of its Feast value type) of keys, features and timestamp; reads nothing."""
        keys = [(entity.join_key, entity.value_type) for entity in self.profile.entities]
        features = [(name, dtype.to_value_type().name) for name, dtype in FIELD_TYPES.items()]
        return [*keys, *features, (self.timestamp_field, ValueType.UNIX_TIMESTAMP.name)]

    def validate(self, config: RepoConfig) -> None:
        """Nothing when every view declared in the repo can be served.

        Raises:
            DeclarationError: all faults of the repo at once (see ``validation``).
        """
        from qanchor_plugin.feast_ext.validation import validate_source  # Spark is an extra

        validate_source(config, self)

    def get_table_query_string(self) -> str:
        """Never answers: embeddings are computed, not read from a table.

        Raises:
            DeclarationError: always, naming the offline store that reads this source.
        """
        raise DeclarationError(
            f"source {self.name!r} is not a table: its embeddings are computed from behaviour. Set "
            "offline_store: type: qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore."
        )

    def _to_proto_impl(self) -> DataSourceProto:
        from qanchor_plugin.feast_ext.engine_freeze import freeze_on_write

        freeze_on_write(self)
        return custom_proto(self, _CLASS_TYPE, self.to_json())

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> "AnchorSource":
        """The source that ``to_proto`` wrote; unknown keys are a DeclarationError."""
        given = json.loads(data_source.custom_options.configuration)
        reject_unknown_keys(f"anchor source {data_source.name!r}", given, {"scenario", "profile"})
        return AnchorSource(
            Scenario.from_dict(given["scenario"]),
            Profile.from_dict(given["profile"]),
            name=data_source.name,
            timestamp_field=data_source.timestamp_field,
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )
