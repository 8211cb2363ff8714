"""Engines trained for the evaluation: a seed, a cut and what is changed; each is made once."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from feast_repo.evaluation.study import slug
from feast_repo.ingest import settings_of
from feast_repo.profiles import household_journey
from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.evaluation.tasks import Cut
from qanchor_plugin.identity import digest

if TYPE_CHECKING:
    from qanchor_plugin.training.pretrain import PretrainPlan
    from qanchor_plugin.training.useru import PairPlan

OWN_TABLES = (S.PAIRS_TABLE, "job_runs")
"""Tables that a lake of pairs has for itself; all others are the store's, linked."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a training does differently.

    Attributes:
        name: as shown.
        engine: changes to the engine's configuration.
        objective, train: changes to these plans.
        share: of the users that pairs are taken from, 0 to 1.
    """

    name: str = "base"
    engine: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0


BASE = Variant()


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """Trained engines by variant and seed, under ``root/build``.

    Attributes:
        say: gets one line for each thing done.
    """

    root: Path
    cut: Cut
    say: Callable[[str], None] = print

    @property
    def known_until(self) -> int:
        """The cut in microseconds: pre-training knows nothing from it on."""
        return int(self.cut.at.tz_localize("UTC").timestamp() * 1_000_000)

    @cached_property
    def fresh(self) -> QueryAnchorEngine:
        """The engine that every training starts from: the demo configuration, weights from its seed."""
        return QueryAnchorEngine.untrained(DEMO, device="cpu")

    def untrained(self) -> Path:
        """Folder of that engine."""
        folder = self.root / "build" / "engines" / f"untrained-{self.fresh.digest[:8]}"
        if not (folder / "config.json").exists():
            self.fresh.save_pretrained(folder)
        return folder

    def train_engine(self, seed: int, variant: Variant = BASE) -> Path:
        """Folder of the engine trained on pairs before the cut; trained now if it was not by this very plan.

        A training that was stopped goes on from its newest checkpoint. Changes to the code of training are
        not seen: remove build/engines after one.

        Raises:
            QAnchorError: pairs cannot be made, or the training stopped.
        """
        from qanchor_plugin.training.pretrain import pretrain

        plan = self.plan(seed, variant)
        key = digest(
            "training", json.dumps(plan.to_dict(), sort_keys=True), self.pair_plan_key(variant.share)
        )
        folder = self.engines / slug(variant.name) / f"seed-{seed}-{key[:8]}"
        if not (folder / "training.json").exists():
            self.say(f"training {variant.name}, seed {seed}")
            pretrain(self.lake_of_pairs(variant.share), household_journey, plan, folder, resume=True)
        return folder / "engine"

    @property
    def engines(self) -> Path:
        """Folder of the engines trained up to this cut."""
        return self.root / "build" / "engines" / f"{self.cut.at:%Y-%m-%d}"

    def plan(self, seed: int, variant: Variant) -> "PretrainPlan":
        """What is trained: every part's own defaults, the seed and the variant's changes aside."""
        from qanchor_plugin.training.batches import BatchPlan
        from qanchor_plugin.training.objective import ObjectivePlan
        from qanchor_plugin.training.pretrain import PretrainPlan
        from qanchor_plugin.training.trainer import TrainPlan

        return PretrainPlan(
            engine=str(self.untrained()),
            engine_changes=dict(variant.engine),
            objective=ObjectivePlan(**variant.objective),
            batches=BatchPlan(seed=seed),
            train=TrainPlan(seed=seed, **variant.train),
            until=self.known_until,
        )

    def pair_plan_key(self, share: float) -> str:
        """Identity of the pairs that are asked for."""
        return digest("pairs", json.dumps(asdict(self.pair_plan), sort_keys=True), f"{share:g}")

    @cached_property
    def pair_plan(self) -> "PairPlan":
        """The pairs that are made: every default, and nothing known from the cut on."""
        from qanchor_plugin.training.useru import PairPlan

        return PairPlan(known_until=self.known_until)

    def lake_of_pairs(self, share: float) -> Settings:
        """Settings of a lake whose pairs know nothing from the cut on; the store's own is not written to."""
        settings = settings_of(self.root)
        key = self.pair_plan_key(share)[:8]
        lake = self.root / "build" / "evaluation" / "lakes" / f"{self.cut.at:%Y-%m-%d}-{share:g}-{key}"
        own = replace(settings, lake=str(lake), log_folder=str(self.root / "build" / "evaluation" / "logs"))
        if (lake / "ready").exists():
            return own
        linked_lake(Path(settings.lake), lake)
        from spark_jobs.build_pairs import build
        from spark_jobs.session import get_session

        self.say(f"making pairs before {self.cut.at:%Y-%m-%d}, of {share:.0%} of the users")
        build(get_session(own), own, household_journey, self.pair_plan)
        if share < 1:
            keep_share(lake / S.PAIRS_TABLE, share)
        (lake / "ready").touch()
        return own


def linked_lake(lake: Path, target: Path) -> None:
    """``target`` shows the lake's tables, and has pairs and runs of its own."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for one in lake.iterdir():
        if one.name not in OWN_TABLES and one.is_dir():
            (target / one.name).symlink_to(one.resolve(), target_is_directory=True)


def keep_share(table: Path, share: float) -> None:
    """Of the pairs that are trained on, those of a share of the users stay: by hash, so a larger share
    holds the smaller; held-out pairs all stay."""
    rows = DeltaTable(str(table)).to_pyarrow_table()
    users = rows[S.USER].combine_chunks()
    chosen = {user for user in pc.unique(users).to_pylist() if user_number(user) < share}
    pairs = zip(users.to_pylist(), rows["held_out"].to_pylist(), strict=True)
    kept = [is_held or user in chosen for user, is_held in pairs]
    partitions = DeltaTable(str(table)).metadata().partition_columns
    write_deltalake(
        str(table), rows.filter(pa.array(kept)), mode="overwrite", partition_by=partitions or None
    )


def user_number(user: bytes) -> float:
    """A number from 0 to 1 that belongs to the user."""
    return int.from_bytes(hashlib.blake2b(user, digest_size=8).digest(), "big") / 2**64
