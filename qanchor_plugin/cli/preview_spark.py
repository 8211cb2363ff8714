"""A few users drawn from the declared sources, through the jobs' own transforms; nothing is written."""

from typing import TYPE_CHECKING

import pyarrow as pa

from qanchor_plugin import schemas as S
from qanchor_plugin.cli.preview_sample import Sample
from qanchor_plugin.declare import Modality, Profile, Settings
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.extras import require
from qanchor_plugin.sequence import fold_users

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MAX_ROWS_A_USER = 5_000
"""Of each modality, times the users drawn: the newest rows are kept."""

_BATCH = "preview"


def from_sources(settings: Settings, profile: Profile, size: int) -> Sample:
    """Users drawn from the sources by Spark, the same ones every time; only their rows reach this process.

    Raises:
        InputDataError: a source cannot be read, lacks a column, or none holds a usable user.
    """
    require("pyspark", purpose="qanchor preview from the sources")
    from spark_jobs.session import get_session
    from spark_jobs.transforms.render import texts

    spark = get_session(settings, app_name="qanchor-preview")
    shaped = {one.name: _usable_rows(spark, settings, profile, one) for one in profile.modalities}
    drawn = _drawn(spark, profile, shaped, size)
    names: dict[bytes, str] = {}
    rows: dict[str, list[pa.Table]] = {"behaviour_sequences": [], "profile_rows": []}
    for modality in profile.modalities:
        theirs = _theirs(shaped[modality.name], drawn, modality, size).cache()
        said = texts(theirs, modality).toArrow()
        names.update(zip(said[S.TEXT_ID].to_pylist(), said[S.TEXT].to_pylist(), strict=True))
        table = "behaviour_sequences" if modality.kind == "events" else "profile_rows"
        rows[table].append(_stored(theirs, profile, modality).cast(S.TABLES[table]))
        theirs.unpersist()
    whole = {name: pa.concat_tables(parts or [S.TABLES[name].empty_table()]) for name, parts in rows.items()}
    histories = list(fold_users(whole["behaviour_sequences"], whole["profile_rows"], profile))
    return Sample(histories=histories, texts=names, place="sources")


def _usable_rows(
    spark: "SparkSession", settings: Settings, profile: Profile, modality: Modality
) -> "DataFrame":
    from spark_jobs.sources import read_source
    from spark_jobs.transforms.validate import normalised, required_columns, usable

    rows = read_source(spark, modality.source)
    missing = sorted(set(required_columns(modality, profile.entities)) - set(rows.columns))
    if missing:
        raise InputDataError(
            f"modality {modality.name!r}: source {modality.source.name!r} has no column {missing}; "
            f"it has {sorted(rows.columns)}. Mend the declaration or the source."
        )
    return usable(normalised(rows, modality, profile.entities, latest=settings.now()))


def _drawn(spark: "SparkSession", profile: Profile, shaped: "dict[str, DataFrame]", size: int) -> "DataFrame":
    """The keys of ``size`` users at most of the first modality that has any."""
    from pyspark.sql import functions as F

    from spark_jobs.transforms.validate import KEYS

    for modality in (*profile.event_modalities, *profile.tabular_modalities):
        keys = shaped[modality.name].select(KEYS).distinct().orderBy(F.xxhash64(KEYS)).limit(size)
        found = keys.collect()
        if found:
            return spark.createDataFrame(found, keys.schema)
    places = [modality.source.name for modality in profile.modalities]
    raise InputDataError(
        f"no source of profile {profile.name!r} holds a usable row up to now: {places}. For data that begin "
        "after now, or ended, look at 'qanchor: clock:' in feature_store.yaml."
    )


def _theirs(shaped: "DataFrame", drawn: "DataFrame", modality: Modality, size: int) -> "DataFrame":
    from pyspark.sql import functions as F

    from spark_jobs.transforms.validate import KEYS

    rows = shaped.join(F.broadcast(drawn), on=KEYS, how="left_semi")
    newest = rows if modality.static else rows.orderBy(F.col(S.EVENT_AT).desc())
    return newest.limit(MAX_ROWS_A_USER * size)


def _stored(shaped: "DataFrame", profile: Profile, modality: Modality) -> pa.Table:
    """The rows as the lake would hold them."""
    from spark_jobs.transforms.render import rendered
    from spark_jobs.transforms.sequences import profile_rows, sequences

    events = rendered(shaped, modality, profile.entities)
    write = sequences if modality.kind == "events" else profile_rows
    return write(events, modality, batch=_BATCH, num_buckets=1).toArrow()
