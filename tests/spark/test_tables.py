"""The lake: schemas, layout, no statistics of texts and users, clear errors."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import LakeError
from spark_jobs.layout import LAYOUT, layout_of, write_layout
from spark_jobs.tables import Lake

pytestmark = pytest.mark.spark
AT = datetime(2024, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def lake(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(spark, Settings(lake=str(tmp_path_factory.mktemp("tables") / "lake")))
    lake.ensure()
    return lake


def log_of(lake: Lake, name: str) -> str:
    return "".join(p.read_text() for p in sorted(Path(lake.path(name), "_delta_log").glob("*.json")))


def test_every_table_stands_with_its_declared_columns_and_partitions(lake: Lake) -> None:
    for name, schema in S.TABLES.items():
        meta = next(
            json.loads(line)["metaData"] for line in log_of(lake, name).splitlines() if "metaData" in line
        )
        assert lake.read(name).columns == schema.names
        assert tuple(meta["partitionColumns"]) == S.PARTITIONED_BY[name]
        assert meta["configuration"]["delta.enableDeletionVectors"] == "false"


def test_ensure_twice_commits_nothing_more(lake: Lake) -> None:
    before = {name: lake.version(name) for name in S.TABLES}
    lake.ensure()
    assert {name: lake.version(name) for name in S.TABLES} == before
    assert set(before.values()) == {0}


def test_the_delta_log_keeps_no_value_of_a_user_or_a_text(spark: SparkSession, lake: Lake) -> None:
    row = ("purchases", "d1", b"SECRETUSER", "SECRETKEY", 0, "b1", AT, AT, b"SECRETTEXT")
    lake.append("profile_rows", spark.createDataFrame([row], lake.schema("profile_rows")))
    lake.append("event_texts", spark.createDataFrame([(b"x" * 16, "SECRETTEXT")], lake.schema("event_texts")))
    log = log_of(lake, "profile_rows") + log_of(lake, "event_texts")
    assert '\\"batch\\":\\"b1\\"' in log
    assert not re.search("SECRET|U0VDUkVU", log)


def test_vectors_are_stored_uncompressed(spark: SparkSession, lake: Lake) -> None:
    rows = [("enc", bytes([n]) * 16, bytes(768)) for n in range(3)]
    lake.append("event_vectors", spark.createDataFrame(rows, lake.schema("event_vectors")))
    file = next(Path(lake.path("event_vectors")).glob("encoder_id=*/*.parquet"))
    assert pq.ParquetFile(file).metadata.row_group(0).column(1).compression == "UNCOMPRESSED"
    assert spark.conf.get("parquet.block.size", "unset") == "unset"


def test_replace_exchanges_just_the_matching_rows_in_one_commit(spark: SparkSession, lake: Lake) -> None:
    def rows(digest: str, *keys: str) -> object:
        given = [("m", digest, k.encode(), k, 0, "b", AT, AT, b"t" * 16) for k in keys]
        return spark.createDataFrame(given, lake.schema("profile_rows"))

    lake.append("profile_rows", rows("dA", "one", "two"))
    lake.append("profile_rows", rows("dB", "other"))
    before = lake.version("profile_rows")
    lake.replace("profile_rows", rows("dA", "three"), where=f"{S.MODALITY_DIGEST} = 'dA'")
    kept = lake.read("profile_rows").where(F.col(S.MODALITY_DIGEST).isin("dA", "dB"))
    assert sorted(row[S.USER_KEY] for row in kept.collect()) == ["other", "three"]
    assert lake.version("profile_rows") == before + 1


def test_a_lake_below_a_file_is_refused_before_any_work(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LakeError, match="cannot be written"):
        Lake(spark, Settings(lake=str(tmp_path / "file" / "lake"))).ensure()


def test_a_lake_of_a_newer_layout_is_refused_before_any_work(lake: Lake) -> None:
    assert layout_of(lake.folder) == LAYOUT
    write_layout(lake.folder, LAYOUT + 1)
    with pytest.raises(LakeError, match=f"has layout {LAYOUT + 1}"):
        lake.ensure()
    write_layout(lake.folder, LAYOUT)


def test_a_lake_that_is_no_folder_is_refused(spark: SparkSession) -> None:
    with pytest.raises(LakeError, match="is not a folder"):
        Lake(spark, Settings(lake="s3://bucket/lake"))
