"""Soft prompts tuned inside the folds: no test household is seen by the prompt that scores it.

Prompts are tuned on the first repeat's folds (7 tasks x 5), and served like any other scenario's.
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from feast_repo.evaluation.questions import right_queries
from feast_repo.evaluation.study import Study, slug
from feast_repo.profiles import household_journey
from qanchor_plugin.cli.user_keys import user_bytes
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.evaluation.folds import Fold
from qanchor_plugin.evaluation.probe import out_of_fold_ranks
from qanchor_plugin.prefix_store import LakeTables

if TYPE_CHECKING:
    from qanchor_plugin.training.tuning import TunePlan
    from qanchor_plugin.training.tuning.behaviour import UsersAt

Float64 = npt.NDArray[np.float64]


@dataclass
class Tuning:
    """Tunes, remembers and scores the prompts of one engine.

    Attributes:
        study: its tasks, folds and households.
        name, engine: as given to ``Study.add_engine``.
        plan: how to tune.
    """

    study: Study
    name: str
    engine: str
    plan: "TunePlan"

    @cached_property
    def loaded(self) -> QueryAnchorEngine:
        """The engine in this process."""
        return QueryAnchorEngine.load(self.engine, device="cpu")

    @cached_property
    def users(self) -> "UsersAt":
        """Every household at the cut."""
        from qanchor_plugin.training.tuning.behaviour import users_at

        study = self.study
        keys = [
            user_bytes({"household_id": int(one)}, household_journey.entities)
            for one in study.tasks.households
        ]
        cutoff = int(study.cut.at.tz_localize("UTC").timestamp() * 1_000_000)
        tables = LakeTables(study.reader.settings().lake)
        return users_at(keys, cutoff, household_journey, self.loaded, tables)

    def prompts(self, tasks: list[str]) -> dict[str, str]:
        """Folder of each tuned prompt by view name: ``redeem_f0`` to ``redeem_f4`` and so on."""
        made = {}
        for task in tasks:
            for number, (train, _) in enumerate(self.study.found.folds[task][0]):
                made[f"{task}_f{number}"] = str(self.prompt(task, train))
        return made

    def prompt(self, task: str, rows: npt.NDArray[np.intp]) -> Path:
        """Folder of the prompt tuned on these rows; tuned now if it was not."""
        labels = self.study.tasks.labels[task]
        said = repr((task, rows.tobytes(), labels[rows].tobytes(), sorted(asdict(self.plan).items())))
        key = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
        folder = self.study.work / "prompts" / f"{self.loaded.digest}-{self.study.date}" / f"{task}-{key}"
        if (folder / "soft_prompt.json").exists():
            return folder
        from qanchor_plugin.training.tuning import tune

        users = self.users
        found = tune(
            self.loaded,
            right_queries()[task],
            [users.prefixes[row] for row in rows],
            [users.cutoff] * len(rows),
            labels[rows].astype(np.int64),
            self.plan,
        )
        found.soft_prompt.save(folder)
        self.study.say(f"{self.name}: tuned {task} on {len(rows):,} households, {found.best_step} steps")
        return folder

    def vectors(self, tasks: list[str]) -> dict[str, npt.NDArray[np.float32]]:
        """(n, 128) by view name, through ``get_historical_features``."""
        prompts = self.prompts(tasks)
        asked = {view: right_queries()[view.rsplit("_f", 1)[0]] for view in prompts}
        kind = hashlib.blake2b(repr(sorted(prompts.items())).encode(), digest_size=6).hexdigest()
        return self.study.reader.vectors(
            f"{slug(self.name)}-tuned-{kind}", self.engine, self.loaded.digest, asked, soft_prompts=prompts
        )

    def ranks(self, tasks: list[str]) -> dict[str, Float64]:
        """(1, n) out-of-fold ranks by task, for ``Comparison.add_ranks``: probe and prompt of each fold saw
        the same training households."""
        vectors = self.vectors(tasks)
        return {
            task: fold_ranks(
                [vectors[f"{task}_f{number}"] for number in range(len(folds[0]))],
                self.study.tasks.labels[task],
                folds[0],
            )
            for task, folds in self.study.found.folds.items()
            if task in tasks
        }


def fold_ranks(
    features: list[npt.NDArray[np.float32]], labels: npt.NDArray[np.bool_], folds: list[Fold]
) -> Float64:
    """(1, n): each fold's test rows scored from that fold's own features (n, d)."""
    ranks = np.full((1, len(labels)), np.nan)
    for own, (train, test) in zip(features, folds, strict=True):
        ranks[0, test] = out_of_fold_ranks(own, labels, [[(train, test)]])[0, test]
    return ranks
