"""The demo's steps in order, and what each says when it is done."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

import feast
import numpy as np
import numpy.typing as npt
import pyspark
import torch
from feast import FeatureStore

from feast_repo.demo import findings, reads
from feast_repo.demo import store as steps
from feast_repo.demo.stage import Stage, StepBars
from feast_repo.ingest import ingest
from qanchor_plugin.errors import QAnchorError
from spark_jobs.progress import watched_by

HOUSEHOLDS = [7, 67, 2305]
AD_HOC = "Does this household cook with fresh vegetables?"

Embeddings = Mapping[str, npt.NDArray[np.float32]]


def tell(stage: Stage, root: Path) -> None:
    """Every step, from the shipped files to the findings.

    Raises:
        QAnchorError: a step did not do what it must.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stage.say(
        f"Python {platform.python_version()}, feast {feast.__version__}, pyspark {pyspark.__version__}, "
        f"torch {torch.__version__} on {device}, {os.cpu_count()} cores"
    )
    ingest_files(stage, root)
    store = apply_and_materialise(stage, root)
    read_online(stage, store)
    ask_ad_hoc(stage, store)
    show_findings(stage, store, root, *read_point_in_time(stage, store, root))
    stage.console.print(
        f"\nDone in {sum(stage.seconds.values()):.0f} s. Feast's and Spark's own words: logs/.\n"
        "Read on: README.md (declare your own scenario in one screen), then feast_repo/ (this store).\n"
        "Try (in .venv/bin): qanchor status | qanchor preview pet_owner --sample 20 | feast serve"
    )


def ingest_files(stage: Stage, root: Path) -> None:
    """The shipped files stand as Delta tables."""
    with stage.step("Ingest the shipped files into Delta tables") as progress:
        written = ingest(root, progress=progress)
    new = [name for name, is_new in written.items() if is_new]
    stage.say(f"data/raw: wrote {', '.join(new)}" if new else "data/raw stands, made of these very files")


def apply_and_materialise(stage: Stage, root: Path) -> FeatureStore:
    """The registry agrees with feast_repo, and every view is complete to the end of the data."""
    with stage.step("feast apply"):
        store = steps.apply(root)
        settings, declarations = steps.declared(store)
    stage.say(f"{len(declarations.scenarios)} scenarios over one profile, engine {settings.engine!r}")
    title = f"feast materialize {steps.START:%Y-%m-%d} {steps.END:%Y-%m-%d}"
    with stage.step(title) as progress, watched_by(StepBars(progress)):
        late = steps.incomplete(store, root)
        if late:
            store.materialize(steps.START, steps.END, feature_views=late)
            store = steps.opened(root)
        missing = steps.incomplete(store, root) if late else []
        if missing:
            raise QAnchorError(f"materialising did not complete {missing}; the reason stands in the log.")
        rows = steps.stored_embeddings(settings)
    stage.say(
        f"completed {', '.join(late)}" if late else "nothing to do: complete by Feast's record and ours"
    )
    stage.say(
        f"{rows.num_users:,} households x {rows.num_scenarios} scenarios = {rows.num_rows:,} embeddings, "
        f"a median of {rows.median_num_events:.0f} events behind each"
    )
    return store


def read_online(stage: Stage, store: FeatureStore) -> None:
    """Three households in three scenarios, as a scorer reads them."""
    with stage.step("Read online"):
        reads.online(store, HOUSEHOLDS[:1])
        began = monotonic()
        rows = reads.online(store, HOUSEHOLDS)
        took = (monotonic() - began) * 1000
    stage.show(
        ["household", "scenario", "status", "events", "newest event", "embedding"],
        [
            [
                str(row["household_id"]),
                row["scenario"],
                str(row["status"]),
                str(row["num_events"]),
                f"{row['as_of']:%Y-%m-%d}" if row["as_of"] is not None else "",
                first_of(row["embedding"]),
            ]
            for row in rows
        ],
    )
    stage.say(f"{took:.1f} ms for {len(rows)} embeddings")


def ask_ad_hoc(stage: Stage, store: FeatureStore) -> None:
    """The same households, asked what nobody registered."""
    with stage.step("Ask a query that nobody registered"):
        reads.ad_hoc(store, HOUSEHOLDS[:1], AD_HOC)
        began = monotonic()
        vectors = reads.ad_hoc(store, HOUSEHOLDS, AD_HOC)
        took = (monotonic() - began) * 1000
    stage.say(f'"{AD_HOC}": {took:.0f} ms for {len(HOUSEHOLDS)} households, engine loaded')
    for household, vector in zip(HOUSEHOLDS, vectors, strict=True):
        stage.say(f"household {household}: {first_of(vector)}")


def read_point_in_time(
    stage: Stage, store: FeatureStore, root: Path
) -> tuple[findings.Journey, findings.TaskTable, Embeddings]:
    """The seven tasks at the cut: embeddings as of it, labels from what came after it."""
    at = findings.FINAL_CUT.at.to_pydatetime()
    title = f"Read point in time, as of {at:%Y-%m-%d}"
    with stage.step(title) as progress, watched_by(StepBars(progress)):
        journey, table = findings.tasks_at_cut(root / "feast_repo" / "data")
        embeddings = reads.point_in_time(store, table.households, at)
    num = len(table.households)
    stage.say(
        f"{num:,} households x {len(embeddings)} scenarios = {num * len(embeddings):,} exact embeddings"
    )
    return journey, table, embeddings


def show_findings(
    stage: Stage,
    store: FeatureStore,
    root: Path,
    journey: findings.Journey,
    table: findings.TaskTable,
    embeddings: Embeddings,
) -> None:
    """What a linear probe reads from the embeddings, and what one more scenario costs."""
    settings, declarations = steps.declared(store)
    with stage.step("Probe the embeddings and time a scenario"):
        found = findings.probe(journey, table, embeddings)
        users = steps.some_users(settings, findings.NUM_TIMED_USERS)
        first, further = findings.milliseconds_per_user(settings, declarations, users)
        picture = findings.draw(found, root / "data" / "probe.png")
    stage.console.print(
        f"\n[bold]Findings[/bold]: AUC of a linear probe, behaviour up to {findings.FINAL_CUT.at:%Y-%m-%d}, "
        f"labels after it, n = {len(table.households):,}, standard errors in brackets"
    )
    stage.show(
        ["task", "positive", findings.COUNTS, findings.ANCHORS, "difference"],
        findings.probe_rows(found),
    )
    gain = found.difference(findings.ANCHORS, findings.COUNTS)
    stage.say(
        f"For a trainer: no label was seen, and nothing from {findings.FINAL_CUT.at:%Y-%m-%d} on; a question "
        f"in plain words gains {gain.value:+.3f} ({gain.standard_error:.3f}) over {findings.COUNTS}."
    )
    stage.say(
        "The differences are paired; one within about two standard errors shows nothing. "
        f"Picture: {picture.relative_to(root)}"
    )
    stage.say(
        f"One household with one scenario takes {first:.1f} ms, its behaviour read and its prefix found; "
        f"each further scenario {further:.2f} ms ({further / first:.0%}). Over {len(users)} households."
    )


def first_of(vector: npt.ArrayLike | None) -> str:
    """The first two of an embedding's numbers; "" for none."""
    return "" if vector is None else " ".join(f"{one:+.3f}" for one in np.asarray(vector)[:2]) + " ..."
