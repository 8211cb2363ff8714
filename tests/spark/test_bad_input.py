"""Sources that cannot be used: refused by name, before anything is written."""

from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from qanchor_plugin.declare import EntityRef, Profile, Settings
from qanchor_plugin.errors import DeclarationError, InputDataError, LakeError, QAnchorError
from spark_jobs import session
from spark_jobs.build_sequences import plan
from spark_jobs.failures import named_failures
from spark_jobs.refresh import refresh
from spark_jobs.session import get_session, session_conf
from spark_jobs.source_changes import Consumed
from spark_jobs.tables import Lake
from tests.spark.records import HOUSEHOLD, purchases
from tests.spark.world import PURCHASES, make_world, on, purchases_of_day

pytestmark = pytest.mark.spark

GOOD = purchases_of_day(0)
BAD = [(None, *GOOD[0][1:]), (1, None, *GOOD[0][2:]), (1, on(40_000), *GOOD[0][2:])]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(lake=str(tmp_path / "lake"), clock=on(30))


def profile_over(spark: SparkSession, folder: Path, rows: list[tuple]) -> Profile:
    path = str(folder / "purchases")
    spark.createDataFrame(rows, PURCHASES).coalesce(1).write.format("delta").mode("append").save(path)
    return Profile("shopper", HOUSEHOLD, [purchases(path, known_at="created")])


def test_above_the_share_the_counts_and_the_setting_are_named(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    profile = profile_over(spark, tmp_path, [*GOOD, *BAD])
    with pytest.raises(InputDataError, match=r"3 of 6 new rows cannot be used") as caught:
        plan(spark, settings, [profile], {})
    for word in ("Nothing was written", "null_user", "null_event_at", "future_event_at", "max_bad_row_share"):
        assert word in str(caught.value)
    assert not Path(settings.lake).exists()


def test_below_the_share_bad_rows_are_counted_and_left_out(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    profile = profile_over(spark, tmp_path, [*GOOD, *BAD])
    (planned,) = plan(spark, replace(settings, max_bad_row_share=0.5), [profile], {})
    assert planned.counts == {"rows": 6, "null_user": 1, "null_event_at": 1, "future_event_at": 1}
    assert planned.num_usable == planned.shaped.count() == 3


def test_a_vanished_column_and_a_lost_source_are_named(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    path = str(tmp_path / "purchases")
    rows = spark.createDataFrame(GOOD, PURCHASES).drop("brand", "value")
    rows.coalesce(1).write.format("delta").save(path)
    profile = Profile("shopper", HOUSEHOLD, [purchases(path)])
    with pytest.raises(InputDataError, match=r"no column \['brand', 'value'\]; it has \['aisle'"):
        plan(spark, settings, [profile], {})
    lost = Profile("shopper", HOUSEHOLD, [purchases(str(tmp_path / "nowhere"))])
    with pytest.raises(InputDataError, match=r"'purchases' cannot be read from .*nowhere"):
        plan(spark, settings, [lost], {})


def test_only_added_rows_are_read_and_any_other_change_compares(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    profile = profile_over(spark, tmp_path, GOOD)
    digest = profile.modalities[0].sequence_digest
    (first,) = plan(spark, settings, [profile], {})
    assert (first.counts["rows"], first.increment.kind, first.batch.last) == (3, "whole", 0)
    assert plan(spark, settings, [profile], {digest: Consumed(batches=[first.batch])}) == []

    profile_over(spark, tmp_path, purchases_of_day(1))
    (second,) = plan(spark, settings, [profile], {digest: Consumed(batches=[first.batch])})
    assert (second.counts["rows"], second.increment.kind) == (4, "added")
    assert str(second.batch).endswith(".1-1")

    spark.sql(f"DELETE FROM delta.`{tmp_path / 'purchases'}` WHERE household_id = 4")
    (third,) = plan(spark, settings, [profile], {digest: Consumed(batches=[first.batch, second.batch])})
    assert (third.counts["rows"], third.increment.kind) == (6, "compared")
    assert "versions 2-2 did more than add rows, and the source keeps no change feed" in third.increment.why
    assert str(third.batch).endswith(".0-2")

    (full,) = plan(spark, settings, [profile], {digest: Consumed(batches=[third.batch])}, full=True)
    assert (str(full.batch), full.increment.replaces) == (str(third.batch), True)


def test_one_modality_of_two_entities_is_refused(
    spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    first = profile_over(spark, tmp_path, GOOD)
    other = EntityRef(name="shop", join_key="household_id", value_type="INT32")
    second = Profile("other", other, first.modalities)
    with pytest.raises(DeclarationError, match="'purchases' is used with entities"):
        plan(spark, settings, [first, second], {})


def test_a_full_disk_and_our_own_errors_in_a_worker_are_named(spark: SparkSession) -> None:
    def failing(kind: str, message: str):  # type: ignore[no-untyped-def]
        def fail(batches):  # type: ignore[no-untyped-def]
            from qanchor_plugin import errors

            raise (OSError(28, message) if kind == "OSError" else getattr(errors, kind)(message))

        return spark.range(1).mapInArrow(fail, "id long")

    with pytest.raises(LakeError, match=r"lake/x: the disk is full"), named_failures("lake/x"):
        failing("OSError", "No space left on device").collect()
    with pytest.raises(QAnchorError, match="the folder is torn") as caught, named_failures("x"):
        failing("EngineError", "the folder is torn").collect()
    assert type(caught.value).__name__ == "EngineError"


def test_the_session_is_utc_whatever_the_configuration_says() -> None:
    conf = session_conf(Settings(lake="x", spark_conf={"spark.sql.session.timeZone": "Asia/Tokyo", "a": "b"}))
    assert (conf["spark.sql.session.timeZone"], conf["a"]) == ("UTC", "b")


def test_the_active_session_is_used_again(spark: SparkSession, settings: Settings) -> None:
    assert get_session(settings) is spark


def test_absent_or_old_java_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(QAnchorError, match=r"No Java was found .*Java 17"):
        session.check_java()
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    with pytest.raises(QAnchorError, match="is Java 8"):
        session.check_java()
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\" 2023-10-17' >&2\n")
    assert session.check_java() == 21


def test_under_spark_submit_the_master_is_the_one_it_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    assert session_conf(Settings(lake="x"))["spark.ui.enabled"] == "false"
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    assert "spark.ui.enabled" not in session_conf(Settings(lake="x"))
    assert "spark.ui.enabled" in session_conf(Settings(lake="x", spark_master="local[2]"))


def test_a_refused_run_stands_in_the_ledger_with_its_reason(spark: SparkSession, tmp_path: Path) -> None:
    world = make_world(spark, tmp_path)
    world.add_cards([(1, on(0), "gold")])
    world.add_purchases([*GOOD, *BAD])
    with pytest.raises(InputDataError, match="max_bad_row_share"):
        refresh(spark, world.settings, world.declarations, end=on(5))
    (row,) = Lake(spark, world.settings).read("job_runs").collect()
    assert (row["job"], row["state"]) == ("sequences", "failed")
    assert "3 of 6 new rows cannot be used" in row["message"]
