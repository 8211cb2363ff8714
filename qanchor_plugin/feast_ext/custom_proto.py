"""What every custom data source of ours writes to the registry."""

from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto


def custom_proto(source: DataSource, class_type: str, configuration: str) -> DataSourceProto:
    """The source as Feast's registry keeps it, its own part as JSON text.

    Args:
        source: of a class that Feast does not know.
        class_type: dotted path of that class, by which the registry finds it again.
        configuration: what the class needs besides Feast's own fields.
    """
    return DataSourceProto(
        name=source.name,
        type=DataSourceProto.CUSTOM_SOURCE,
        data_source_class_type=class_type,
        custom_options=DataSourceProto.CustomSourceOptions(configuration=configuration.encode()),
        description=source.description,
        tags=source.tags,
        owner=source.owner,
        timestamp_field=source.timestamp_field,
    )
