"""Whether a profile's sources hold what the profile names: read from the real tables."""

from typing import TYPE_CHECKING, Any

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.errors import DeclarationError, QAnchorError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
_INSTANTS = ("timestamp", "timestamp_ntz", "date")


def profile_faults(spark: "SparkSession | Any", profile: Profile) -> list[str]:
    """Faults of keys and of every modality's columns, one sentence each."""
    from spark_jobs.identity import check_entities

    faults = []
    try:
        check_entities(profile.entities)
    except DeclarationError as error:
        faults += list(error.faults)
    for modality in profile.modalities:
        faults += _modality_faults(spark, profile, modality)
    return faults


def _modality_faults(spark: "SparkSession | Any", profile: Profile, modality: Modality) -> list[str]:
    from spark_jobs.sources import mapped_name, source_columns

    source = modality.source
    where = f"profile {profile.name!r}, modality {modality.name!r}"
    try:
        types = source_columns(spark, source)
    except QAnchorError as error:
        return [f"{where}: {error}"]
    times = [mapped_name(source, name) for name in (source.event_at, source.known_at) if name]
    wanted = dict.fromkeys((*profile.join_keys, *times, *modality.columns))
    missing = [name for name in wanted if name not in types]
    faults = []
    if missing:
        faults.append(
            f"{where}: source {source.name!r} has no columns {missing}; it has {sorted(types)}. "
            "Correct the names, or map them with field_mapping."
        )
    for name in modality.amounts:
        if name in types and types[name].split("(")[0] not in _NUMBERS:
            faults.append(f"{where}: amount {name!r} is {types[name]}, not a number. Name a numeric column.")
    for name in times:
        if name in types and types[name] not in _INSTANTS:
            faults.append(
                f"{where}: {name!r} is {types[name]}, not an instant. Give the source a timestamp column."
            )
    return faults
