"""Pre-training: a lake's pairs and an engine in, a trained engine's folder out."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from qanchor_plugin.backend.vectors import vector_folder
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import PRESETS
from qanchor_plugin.engine.event_vectors import VectorSnapshot
from qanchor_plugin.engine.load import CONFIG, WEIGHTS, inside, read_config, resolve_device
from qanchor_plugin.errors import EngineError, InputDataError
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.training.batches import BatchPlan, PairBatches
from qanchor_plugin.training.objective import Objective, ObjectivePlan
from qanchor_plugin.training.own_space import CHOICES, KEPT, fit_own_space
from qanchor_plugin.training.pair_table import NO_PAIRS, PairsBuild, last_build
from qanchor_plugin.training.sanity import Sanity, sanity_of
from qanchor_plugin.training.trainer import Trainer, TrainPlan, TrainReport
from qanchor_plugin.training.trainer.lora import LoraPlan, trainable
from qanchor_plugin.training.trainer.recompute import recomputed_layers
from qanchor_plugin.training.trainer.steps import accelerator_for
from qanchor_plugin.training.trainer.watch import Watcher

ENGINE, TRAINING = "engine", "training.json"


@dataclass(frozen=True, kw_only=True)
class PretrainPlan:
    """Everything that a trained engine follows from, the lake aside.

    Attributes:
        engine: a preset or a folder: what training begins with.
        engine_changes: of its config, for ablations; a folder's weights must still fit.
        train, batches, objective: the parts' own plans.
        space: of a ``meaning`` engine's heads: the ``engine``'s own, or fitted before training on the lake's
            ``texts`` or ``behaviour`` (see :mod:`.behaviour_space`), for data unlike what it has seen.
        lora: of an ``hf`` backbone; None leaves it frozen. A ``meaning`` engine is trained whole.
        until: refuse pairs that tell of anything from this instant on (microseconds); None takes any.
        device: ``auto`` (cuda when it is there), ``cpu`` or ``cuda``.
    """

    engine: str = "demo"
    engine_changes: Mapping[str, Any] = field(default_factory=dict)
    train: TrainPlan = field(default_factory=TrainPlan)
    batches: BatchPlan = field(default_factory=BatchPlan)
    objective: ObjectivePlan = field(default_factory=ObjectivePlan)
    space: str = KEPT
    lora: LoraPlan | None = field(default_factory=LoraPlan)
    until: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.space not in CHOICES:
            raise InputDataError(f"space is {self.space!r}; accepted are {list(CHOICES)}.")

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values."""
        return {**asdict(self), "engine_changes": dict(self.engine_changes)}


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """What pre-training made.

    Attributes:
        engine_folder: of the trained engine, as ``QueryAnchorEngine.load`` reads it.
        digest_before, digest_after: of the engine.
        known_until: nothing from this instant on was seen (microseconds); None where no build of the pairs
            is written down.
        pairs_version: of the Delta table ``useru_pairs``.
        num_pairs: of users that were trained on, and of held-out users.
        num_small_batches: batches with fewer users than planned.
        fitted_space: what the meaning space was fitted on; None where the engine's own was kept.
        train: how the run went.
        sanity: label-free figures of held-out users; None where there are none.
    """

    engine_folder: Path
    digest_before: str
    digest_after: str
    known_until: int | None
    pairs_version: int
    num_pairs: tuple[int, int]
    num_small_batches: int
    fitted_space: str | None
    train: TrainReport
    sanity: Sanity | None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values."""
        sanity = None if self.sanity is None else self.sanity.to_dict()
        return {**asdict(self), "engine_folder": str(self.engine_folder), "sanity": sanity}


def pretrain(
    settings: Settings,
    profile: Profile,
    plan: PretrainPlan,
    folder: Path,
    *,
    progress: Watcher | None = None,
    resume: bool = False,
) -> PretrainReport:
    """``folder/engine`` holds the trained engine, ``folder/training.json`` how it came to be.

    Args:
        settings: where the lake stands.
        profile: whose pairs are in it.
        plan: what to train, and how.
        folder: for the engine, checkpoints and logs.
        progress: who watches.
        resume: go on from the newest whole checkpoint in ``folder``.

    Raises:
        InputDataError: no pairs, or pairs of another profile, or of later than ``plan.until``.
        EngineError: see :class:`Trainer`.
    """
    tables = LakeTables(settings.lake)
    known_until = _checked_build(last_build(tables), profile, plan.until)
    device = resolve_device(plan.device)
    accelerator = accelerator_for(plan.train, device)
    engine = starting_engine(plan, device)
    batches = open_batches(tables, settings, profile, engine, plan.batches)
    fitted_space = fit_own_space(engine, batches, plan.space)
    before = engine.digest
    told, sanity = _trained(engine, batches, profile, plan, folder, progress=progress, resume=resume)
    if accelerator.is_main_process:
        engine.save_pretrained(folder / ENGINE)
    accelerator.wait_for_everyone()
    report = PretrainReport(
        engine_folder=folder / ENGINE,
        digest_before=before,
        digest_after=QueryAnchorEngine.load(str(folder / ENGINE), device=str(engine.device)).digest,
        known_until=known_until,
        pairs_version=batches.table.version,
        num_pairs=(_num_pairs(batches, held_out=False), _num_pairs(batches, held_out=True)),
        num_small_batches=batches.num_small_batches,
        fitted_space=fitted_space,
        train=told,
        sanity=sanity,
    )
    if accelerator.is_main_process:
        _write_json(folder / TRAINING, {"plan": plan.to_dict(), "profile": profile.name, **report.to_dict()})
    return report


def _num_pairs(batches: PairBatches, *, held_out: bool) -> int:
    return sum(count for (_, out), count in batches.table.num_pairs.items() if out == held_out)


def _trained(
    engine: QueryAnchorEngine,
    batches: PairBatches,
    profile: Profile,
    plan: PretrainPlan,
    folder: Path,
    *,
    progress: Watcher | None,
    resume: bool,
) -> tuple[TrainReport, Sanity | None]:
    """The engine has the trained weights; how the run went, and what held-out users show."""
    identity = {
        "engine": engine.digest,
        "pairs_version": batches.table.version,
        "profile": profile.digest,
        "batches": asdict(plan.batches),
        "objective": asdict(plan.objective),
        "space": plan.space,
        "lora": None if plan.lora is None else plan.lora.to_dict(),
    }
    with (
        trainable(engine.modules, plan.lora),
        recomputed_layers(engine.modules, plan.train.gradient_checkpointing),
    ):
        torch.manual_seed(plan.train.seed)
        objective = Objective(engine, plan.objective).to(engine.device)
        trainer = Trainer(
            objective,
            batches.batch,
            batches.held_out,
            plan.train,
            folder,
            progress=progress,
            identity=identity,
            describe=lambda batch: batch.to_json(),
        )
        told = trainer.run(resume=resume)
        engine.modules.eval()
        held_out = list(batches.held_out())
        return told, sanity_of(objective.towers, held_out) if held_out else None


def starting_engine(plan: PretrainPlan, device: torch.device) -> QueryAnchorEngine:
    """The engine that training begins with.

    Raises:
        EngineError: no such engine, or changes that its config or weights do not take.
    """
    if not plan.engine_changes:
        return QueryAnchorEngine.load(plan.engine, device=str(device))
    folder = Path(plan.engine)
    config = PRESETS[plan.engine] if plan.engine in PRESETS else read_config(folder)
    try:
        config = config.with_(**plan.engine_changes)
    except TypeError as error:
        raise EngineError(
            f"engine_changes {dict(plan.engine_changes)} do not fit an engine config: {error}. Name keys of "
            "config.json."
        ) from error
    if plan.engine in PRESETS:
        return QueryAnchorEngine.untrained(config, device=str(device))
    with tempfile.TemporaryDirectory() as scratch:  # the same weights beside another config.json
        sources = {
            key: inside(folder.resolve(), getattr(config, key))
            for key in ("backbone_source", "encoder_source")
        }
        (Path(scratch) / WEIGHTS).symlink_to(folder.resolve() / WEIGHTS)
        (Path(scratch) / CONFIG).write_text(config.with_(**sources).to_json(), encoding="utf-8")
        return QueryAnchorEngine.from_pretrained(scratch, device=str(device))


def open_batches(
    tables: LakeTables, settings: Settings, profile: Profile, engine: QueryAnchorEngine, plan: BatchPlan
) -> PairBatches:
    """The lake's pairs as batches for ``engine``.

    Raises:
        InputDataError: no pairs. LakeError: no vectors of the engine's event encoder yet.
    """
    sources = tuple(one.name for one in profile.modalities)
    return PairBatches(
        tables,
        profile,
        engine.config,
        VectorSnapshot.open(vector_folder(settings.lake, engine.encoder_id)),
        plan=plan,
        num_template=len(engine.template_rows(sources)),
    )


def _checked_build(build: PairsBuild | None, profile: Profile, until: int | None) -> int | None:
    """The instant that the pairs stop at.

    Raises:
        InputDataError: they are of another profile, or look further than ``until``.
    """
    if build is None:
        if until is not None:
            raise InputDataError(
                f"nothing says how far the pairs look ahead, and --until asks for it. {NO_PAIRS}"
            )
        return None
    if build.profile_digest not in (None, profile.digest):
        raise InputDataError(
            f"the pairs are of another profile or another version of {profile.name!r}. {NO_PAIRS}"
        )
    if until is not None and build.known_until > until:
        raise InputDataError(
            f"the pairs tell of events up to {_iso(build.known_until)}, later than --until {_iso(until)}. "
            f"Make them again: qanchor pairs --until {_iso(until)}."
        )
    return build.known_until


def _iso(micros: int) -> str:
    from datetime import UTC, datetime, timedelta

    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros):%Y-%m-%dT%H:%M:%SZ}"


def _write_json(path: Path, body: Mapping[str, Any]) -> None:
    scratch = path.with_suffix(".writing")
    scratch.write_text(json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    os.replace(scratch, path)
