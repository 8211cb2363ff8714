"""A training set of any length, through Feast's own historical call, chunk of users by chunk of users.

A chunk that is done is never done again: an interrupted retrieval loses the chunk it was in.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feast import FeatureStore
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import InputDataError, LakeError
from qanchor_plugin.feast_ext.declarations import settings_from_config
from qanchor_plugin.feast_ext.parquet_output import write_parquet
from qanchor_plugin.feast_ext.spark_session import session
from qanchor_plugin.feast_ext.training_checkpoint import Checkpoint, Inputs
from qanchor_plugin.feast_ext.training_chunks import TrainingRun, do_chunks
from qanchor_plugin.feast_ext.training_order import write_in_order
from qanchor_plugin.feast_ext.training_plan import planned_chunks
from qanchor_plugin.feast_ext.training_report import added, events_of, status_of, to_look_at
from qanchor_plugin.feast_ext.training_rows import (
    NUMBER,
    SPREAD,
    Asked,
    asked_of,
    digest_of,
    instant_column,
    stage,
)
from spark_jobs.failures import named_failures
from spark_jobs.progress import Progress, default_progress
from spark_jobs.progress import stage as shown


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``qanchor training-set`` was asked.

    Attributes:
        entities: a parquet or csv file, a folder of parquet or Delta, or an SQL text.
        features: references such as ``coupon_redeemer:embedding``.
        output: folder of parquet to be made.
        checkpoint: folder that remembers what was done.
        mode: ``exact`` or ``as_served`` for every anchor view; None leaves it to them.
        rows_per_chunk: None for chunks of some five minutes.
    """

    entities: str
    features: tuple[str, ...]
    output: Path
    checkpoint: Path
    mode: str | None = None
    rows_per_chunk: int | None = None


def build_training_set(
    store: FeatureStore, request: Request, *, progress: Progress | None = None
) -> dict[str, Any]:
    """The training set stands in ``request.output``; the report says how its rows came about.

    Raises:
        InputDataError: unusable rows, features or folders, or a checkpoint of other inputs.
        JobBusyError: another process works on the checkpoint. Any error of the historical call.
    """
    settings = settings_from_config(store.config)
    spark = session(settings)
    asked = asked_of(store, request.features)
    checkpoint = Checkpoint(request.checkpoint)
    with ExitStack() as held:
        held.enter_context(checkpoint.held())
        inputs = inputs_of(request, asked)
        checkpoint.check(inputs)
        finished = checkpoint.report()
        if finished is not None and request.output.exists():
            return finished
        _check_output(request.output)
        manifest = _begun(spark, store, request, checkpoint, inputs, asked)
        run = _run(store, settings, spark, asked, checkpoint, request)
        watcher = progress or default_progress()
        told = do_chunks(run, checkpoint, manifest, watcher)
        report = _assembled(run, checkpoint, manifest, request, told, watcher)
        checkpoint.finish(report)
    return report


def inputs_of(request: Request, asked: Asked) -> Inputs:
    """What decides the answer."""
    return Inputs(
        entities=request.entities,
        entities_digest=digest_of(request.entities),
        features=request.features,
        mode=request.mode or "",
        declared=asked.declared,
    )


def _check_output(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputDataError(
            f"--output {output} is there already and is not overwritten. Give another name, or remove it."
        )


def _begun(
    spark: SparkSession,
    store: FeatureStore,
    request: Request,
    checkpoint: Checkpoint,
    inputs: Inputs,
    asked: Asked,
) -> dict[str, Any]:
    """The manifest; the rows are read and numbered the first time."""
    begun = checkpoint.manifest()
    if begun is not None:
        return begun
    num_rows = stage(spark, request.entities, asked, checkpoint.rows)
    rows = spark.read.parquet(checkpoint.rows)
    num_chunks = planned_chunks(
        store, rows, asked, num_rows=num_rows, rows_per_chunk=request.rows_per_chunk, mode=request.mode
    )
    return checkpoint.begin(inputs, num_rows=num_rows, num_chunks=num_chunks)


def _run(
    store: FeatureStore,
    settings: Settings,
    spark: SparkSession,
    asked: Asked,
    checkpoint: Checkpoint,
    request: Request,
) -> TrainingRun:
    rows = spark.read.parquet(checkpoint.rows)
    return TrainingRun(
        store=store,
        settings=settings,
        spark=spark,
        asked=asked,
        at=instant_column(rows),
        columns=tuple(name for name in rows.columns if name not in (NUMBER, SPREAD)),
        complete_to=lake_complete_to(spark, settings),
        mode=request.mode or "",
    )


def _assembled(
    run: TrainingRun,
    checkpoint: Checkpoint,
    manifest: Mapping[str, Any],
    request: Request,
    told: Mapping[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """The chunks stand together in the output, in the rows' order; the report."""
    chunks = [checkpoint.done(n) or {} for n in range(manifest["chunks"])]
    parts = checkpoint.answers(manifest["chunks"])
    if not parts:
        raise InputDataError(f"--entities {request.entities!r} holds no row; there is nothing to retrieve.")
    rows = run.spark.read.parquet(*parts)
    flagged = to_look_at(rows, run.views, run.at, run.columns, run.complete_to) if run.views else None
    if flagged is not None:
        looked_at = checkpoint.folder / "rows_to_look_at"
        shutil.rmtree(looked_at, ignore_errors=True)
        with named_failures(str(looked_at)):
            write_parquet(flagged, str(looked_at))
    with shown(run.spark, progress, "rows put in order", manifest["rows"]) as bar:
        _write_output(request.output, parts, _kept(run, rows.columns), bar.add)
    versions = {str(one["lake_versions"]) for one in chunks if one["rows"]}
    return {
        "rows": manifest["rows"],
        "chunks": manifest["chunks"],
        **told,
        "prefills": sum(one["prefills"] for one in chunks),
        "engine_seconds": round(sum(one["engine_seconds"] for one in chunks), 3),
        "complete_to": None if run.complete_to is None else run.complete_to.isoformat(),
        "views": added(chunks, run.views),
        "lake_changed_meanwhile": len(versions) > 1,
        "output": str(request.output),
        "rows_to_look_at": str(checkpoint.folder / "rows_to_look_at") if flagged is not None else None,
    }


def _write_output(
    output: Path, parts: Sequence[str], columns: Sequence[str], tell: Callable[[int], None]
) -> None:
    """The table stands, whole or not at all."""
    files = [str(one) for part in parts for one in sorted(Path(part).glob("*.parquet"))]
    scratch = output.with_name(output.name + ".writing")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        write_in_order(files, scratch, columns=columns, number=NUMBER, tell=tell)
    except OSError as error:
        raise LakeError(
            f"--output {output} cannot be written: {error}. Every chunk stands in the checkpoint: make room "
            "(twice the table) or mend the permission, and run the same command again."
        ) from error
    if output.exists():
        output.rmdir()
    os.replace(scratch, output)


def _kept(run: TrainingRun, columns: Sequence[str]) -> list[str]:
    """Those that the caller gave or asked for."""
    asked = {one.replace(":", "__") for one in run.asked.features}
    hidden = {column for view in run.views for column in (status_of(view), events_of(view))} - asked
    return [name for name in columns if name not in hidden | {NUMBER}]


def lake_complete_to(spark: SparkSession, settings: Settings) -> datetime | None:
    """The newest instant that any scenario is complete to; None before the first refresh."""
    from spark_jobs.runs import SCENARIO_JOB, SUCCEEDED
    from spark_jobs.tables import Lake

    runs = Lake(spark, settings).read("job_runs")
    done = runs.where((F.col(S.JOB) == SCENARIO_JOB) & (F.col(S.STATE) == SUCCEEDED))
    newest = done.agg(F.unix_micros(F.max(S.COMPLETE_TO))).collect()[0][0]
    return None if newest is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=newest)


__all__ = ["Request", "build_training_set", "lake_complete_to"]
