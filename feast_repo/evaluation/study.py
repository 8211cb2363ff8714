"""Models of the Journey side by side at one cut: baselines and engines, each probed on the same folds."""

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.coles.run import make_vectors
from feast_repo.evaluation.questions import NUM_PARAPHRASES, by_kind, questions, right_queries
from feast_repo.evaluation.vectors import Reader
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.evaluation.baselines import (
    NUM_CATEGORIES,
    Baseline,
    hand_made_baselines,
    text_baselines,
    vectors_baseline,
)
from qanchor_plugin.evaluation.comparison import Comparison
from qanchor_plugin.evaluation.counts import category_features, count_features, matrix
from qanchor_plugin.evaluation.encoded_texts import remembered
from qanchor_plugin.evaluation.journey import Journey, read_journey
from qanchor_plugin.evaluation.runs import ProbeRuns
from qanchor_plugin.evaluation.tasks import Cut, TaskTable, journey_tasks
from qanchor_plugin.evaluation.text_baselines import minilm

COLES = "CoLES 128-d, LR"
RIGHT, WRONG, FIXED, REWORDED, WITH_COUNTS = "right", "wrong", "fixed", "reworded", "right and counts"
WITH_ALL_COUNTS = f"right, counts and {NUM_CATEGORIES} categories"


@dataclass(kw_only=True)
class Study:
    """One cut's tasks, and every model that was added to them.

    Attributes:
        root: the repository, where the process stands.
        work: what is remembered between runs stands here.
        num_households: only the first so many, to try things; None is all.
        only: names of the tasks; None is all.
        say: gets one line for each thing done.
    """

    root: Path
    work: Path
    cut: Cut
    num_households: int | None = None
    only: tuple[str, ...] | None = None
    say: Callable[[str], None] = print
    skipped: dict[str, str] = field(default_factory=dict)

    @cached_property
    def journey(self) -> Journey:
        """The shipped files."""
        return read_journey(self.root / "feast_repo" / "data")

    @cached_property
    def tasks(self) -> TaskTable:
        """Households and labels."""
        whole = journey_tasks(self.journey, self.cut)
        num = self.num_households
        labels = {
            task: one[:num] for task, one in whole.labels.items() if self.only is None or task in self.only
        }
        return TaskTable(households=whole.households[:num], labels=labels)

    @cached_property
    def found(self) -> Comparison:
        """Figures of every model so far."""
        return Comparison(self.tasks.labels)

    @cached_property
    def runs(self) -> ProbeRuns:
        """Adds models to ``found``."""
        return ProbeRuns(self.found, self.work / "ranks", say=self.say)

    @cached_property
    def reader(self) -> Reader:
        """Embeddings as served."""
        return Reader(root=self.root, work=self.work, cut=self.cut, households=self.tasks.households)

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """What stands beside an embedding, (n, d) by the name of both together."""
        asked = (self.journey, self.cut, self.tasks.households)
        counts = matrix(count_features(*asked))
        categories = matrix(category_features(*asked, num_categories=NUM_CATEGORIES))
        return {WITH_COUNTS: counts, WITH_ALL_COUNTS: np.hstack([counts, categories])}

    @property
    def date(self) -> str:
        """The cut's day."""
        return f"{self.cut.at:%Y-%m-%d}"

    def add_baselines(self, *, texts: bool = True, coles: bool = True) -> list[str]:
        """Every baseline's name; one that is left out or fails stands in ``skipped`` with what makes it."""
        models = hand_made_baselines(self.journey, self.cut, self.tasks.households)
        if texts:
            encode = remembered(minilm, self.work / "texts" / "all-MiniLM-L6-v2", say=self.say)
            models |= text_baselines(self.journey, self.cut, self.tasks.households, encode)
        if coles and (path := self._coles()):
            models[COLES] = vectors_baseline(path, self.tasks.households)
        else:
            self.skipped[COLES] = f"not run: {coles_command(self.date)}"
        self.runs.add(models)
        return [*models, *self.skipped]

    def _coles(self) -> Path | None:
        """The file of CoLES vectors, made if it is not there; None, and said, where that failed."""
        path = self.root / "build" / f"coles_{self.date}.npz"
        if path.exists():
            return path
        self.say("CoLES: its own environment (build/coles_environment), then its training: minutes, once")
        try:
            make_vectors(
                self.journey, self.cut.at, path, environment=self.root / "build" / "coles_environment"
            )
        except (OSError, subprocess.CalledProcessError) as error:
            self.say(f"CoLES could not be made and is left out: {error}")
            return None
        return path

    def add_engine(
        self, name: str, engine: str, *, right_only: bool = False, all_counts: bool = False
    ) -> Mapping[str, np.ndarray]:
        """The engine stands among the models, asked in every way: ``name, right`` and so on.

        Args:
            name: as shown.
            engine: preset or folder.
            right_only: for ablations, which ask only the right query.
            all_counts: also with the category counts beside it.

        Returns: (n, 128) by what was asked.
        """
        loaded = QueryAnchorEngine.load(engine, device="cpu")
        self.say(f"{name}: reading {len(self.tasks.households):,} households as of {self.date}")
        asked = right_queries() if right_only else questions()
        vectors = self.reader.vectors(slug(name), engine, loaded.digest, asked)
        kinds = {RIGHT: vectors} if right_only else by_kind(vectors)
        models = {f"{name}, {kind}": Baseline(features=features) for kind, features in kinds.items()}
        if not right_only:
            for kind in (WITH_COUNTS, WITH_ALL_COUNTS) if all_counts else (WITH_COUNTS,):
                both = {task: np.hstack([self.counts[kind], one]) for task, one in kinds[RIGHT].items()}
                models[f"{name}, {kind}"] = Baseline(features=both)
        self.runs.add(models)
        if not right_only:
            wordings = [f"{name}, wording {number}" for number in range(1, NUM_PARAPHRASES + 1)]
            self.found.add_mean(f"{name}, {REWORDED}", wordings)
        return vectors


def coles_command(date: str) -> str:
    """What makes the CoLES vectors of a cut."""
    return f"python -m benchmarks.coles.run feast_repo/data --cut {date} --output build/coles_{date}.npz"


def slug(name: str) -> str:
    """A folder name of letters, digits and dashes."""
    return "-".join("".join(one if one.isalnum() else " " for one in name.lower()).split())
