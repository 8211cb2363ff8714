"""Pairs up to the cutoff and engines trained on them: what a user of the package would run."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deltalake import DeltaTable, write_deltalake

from benchmarks.world.declarations import OWN_ADAPTERS, Place
from benchmarks.world.lake import ENGINE
from benchmarks.world.variants import Variant, folder_name
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import PRESETS
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.schemas import PAIRS_TABLE
from qanchor_plugin.training.batches import BatchPlan
from qanchor_plugin.training.objective import ObjectivePlan
from qanchor_plugin.training.own_space import KEPT, fit_own_space
from qanchor_plugin.training.pretrain import PretrainPlan, open_batches, pretrain
from qanchor_plugin.training.trainer import TrainPlan
from qanchor_plugin.training.useru import PairPlan

NUM_TOPICS = 0
"""Topics of question and answer pairs a user: none; the world's pairs are futures and outcomes."""
DONE = "variant.json"


def make_pairs(place: Place, *, questions_per_shard: int = 24, seed: int = 0) -> int:
    """``useru_pairs`` of the lake holds pairs whose answers lie wholly before the cutoff; how many."""
    from spark_jobs.build_pairs import build
    from spark_jobs.session import get_session

    settings = place.settings()
    plan = PairPlan(
        known_until=place.cutoff_us,
        num_topics=NUM_TOPICS,
        num_absent=0,
        questions_per_shard=questions_per_shard,
        seed=seed,
    )
    build(get_session(settings, app_name="qanchor world"), settings, place.profile, plan)
    return DeltaTable(str(place.lake / PAIRS_TABLE)).to_pyarrow_dataset().count_rows()


def plan_of(place: Place, start: Path, variant: Variant, *, num_steps: int, seed: int) -> PretrainPlan:
    """The package's defaults from the engine in ``start``, and what the variant changes."""
    return PretrainPlan(
        engine=str(start),
        objective=ObjectivePlan(**variant.objective),
        batches=BatchPlan(seed=seed),
        train=TrainPlan(**{"steps": num_steps, "seed": seed, **variant.train}),
        space=variant.space,
        until=place.cutoff_us,
        device="cpu",
    )


def trained(place: Place, variant: Variant, *, num_steps: int, seed: int) -> Path:
    """The folder of the variant's engine; trained now, unless it was trained just so before."""
    folder = place.engines / folder_name(variant, seed)
    told = json.dumps({**_plain(variant), "num_steps": num_steps, "seed": seed}, sort_keys=True)
    done = folder / DONE
    if not done.is_file() or done.read_text() != told:
        shutil.rmtree(folder, ignore_errors=True)
        start = untrained(place, variant)
        plan = plan_of(place, start, variant, num_steps=num_steps, seed=seed)
        pretrain(place.settings(lake=lake_of_share(place, variant.user_share)), place.profile, plan, folder)
        done.write_text(told)
    return folder / "engine"


def untrained(place: Place, variant: Variant, *, space: str = KEPT) -> Path:
    """The folder of an engine with the variant's config and no training step.

    Args:
        space: what its meaning heads compare in: the preset's own (of groceries), or fitted on this world as
            training would do it. Label-free, and as much a part of training as the first step.
    """
    config = PRESETS[ENGINE].with_(**{**OWN_ADAPTERS, **variant.engine})
    engine = QueryAnchorEngine.untrained(config, device="cpu")
    settings, name = place.settings(), "-".join(["untrained", *sorted(variant.engine)])
    if space != KEPT:
        tables = LakeTables(settings.lake)
        fit_own_space(engine, open_batches(tables, settings, place.profile, engine, BatchPlan()), space)
        name = f"{name}-{space}"
    engine.save_pretrained(place.engines / name)
    return place.engines / name


def lake_of_share(place: Place, share: float) -> Path:
    """A lake like the world's whose pairs are of the first ``share`` of the shards (1 is the lake itself).

    Shards are random blocks of users, so a share of them is a share of the users; all else is linked.
    """
    if share >= 1:
        return place.lake
    folder = place.folder / f"lake-{share:.0%}".replace("%", "pc")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for entry in place.lake.iterdir():
        if entry.name != PAIRS_TABLE:
            (folder / entry.name).symlink_to(entry.resolve(), target_is_directory=entry.is_dir())
    table = DeltaTable(str(place.lake / PAIRS_TABLE))
    num_shards = 1 + max(int(one["shard"]) for one in table.partitions())
    kept = max(1, round(share * num_shards))
    rows = table.to_pyarrow_table(partitions=[("shard", "in", [str(one) for one in range(kept)])])
    write_deltalake(str(folder / PAIRS_TABLE), rows, partition_by=["shard"])
    return folder


def _plain(variant: Variant) -> dict[str, Any]:
    return {
        **asdict(variant),
        **{key: dict(getattr(variant, key)) for key in ("engine", "objective", "train")},
    }
