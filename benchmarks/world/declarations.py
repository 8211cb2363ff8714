"""What a data scientist would declare over the world's tables: one profile, ten scenarios.

Everything that the runs share stands here: where the files are, the cutoff of the labels, the queries.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.evaluation.synthetic import SYNTHETIC_TASKS, World
from qanchor_plugin.evaluation.synthetic.profile import synthetic_profile
from qanchor_plugin.evaluation.synthetic.vocabulary import MODALITIES

QUERIES: dict[str, str] = {task.name: task.query for task in SYNTHETIC_TASKS}
"""Each task's own anchor query, in plain words; none of them names an interest of the generator."""

FIXED = "anyone"
ASKED: dict[str, str] = {**QUERIES, FIXED: "What kind of person is this user?"}
"""The ten scenarios, and one query that is the same for every task."""

OWN_ADAPTERS: dict[str, Any] = {"modalities": [*MODALITIES, "tabular"]}
"""Changes of the engine's config for this profile: an event adapter for each of its own modalities."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one world stands on disk.

    Attributes:
        folder: everything below is inside it.
        world: which world.
    """

    folder: Path
    world: World

    @property
    def raw(self) -> Path:
        """Delta tables of behaviour: all that a model may read."""
        return self.folder / "raw"

    @property
    def judging(self) -> Path:
        """Parquet files of labels, truth and latents: for judging only."""
        return self.folder / "judging"

    @property
    def lake(self) -> Path:
        """Our Delta tables."""
        return self.folder / "lake"

    @property
    def engines(self) -> Path:
        """Trained engines, a folder each."""
        return self.folder / "engines"

    @property
    def profile(self) -> Profile:
        """Six modalities: five grouped by what was bought, visited or sought, and one row of facts."""
        return synthetic_profile(str(self.raw))

    @property
    def cutoff_us(self) -> int:
        """The labels' cutoff, microseconds since 1970 UTC."""
        return round(self.world.cutoff.timestamp() * 1_000_000)

    def settings(self, *, lake: Path | None = None) -> Settings:
        """The store's settings; time stands still at the cutoff."""
        return Settings(
            lake=str(lake or self.lake),
            clock=self.world.cutoff,
            device="cpu",
            log_folder=str(self.folder / "logs"),
            spark_master="local[2]",
        )

    def described(self) -> dict[str, Any]:
        """The world as JSON-like values, to tell whether what stands on disk is of it."""
        return {**asdict(self.world), "start": self.world.start.isoformat()}
