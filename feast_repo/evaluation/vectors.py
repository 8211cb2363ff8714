"""Embeddings as they are served: read through ``get_historical_features``, once for each engine and cut."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from deltalake import DeltaTable

from feast_repo.ingest import settings_of
from feast_repo.profiles import household_journey
from qanchor_plugin.declare import Settings
from qanchor_plugin.evaluation.tasks import Cut
from qanchor_plugin.feast_ext.evaluation_store import AT, evaluation_store, read_embeddings
from qanchor_plugin.prefix_store import LakeTables

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads and remembers embeddings of the Journey's households at a cut.

    Attributes:
        root: the repository, where the process stands.
        work: folder of what is remembered.
    """

    root: Path
    work: Path
    cut: Cut
    households: Int64

    def settings(self) -> Settings:
        """The store's own, with a log of the evaluation's."""
        return replace(settings_of(self.root), log_folder=str(self.work / "logs"))

    def vectors(
        self,
        name: str,
        engine: str,
        digest: str,
        asked: Mapping[str, str],
        *,
        soft_prompts: Mapping[str, str] | None = None,
    ) -> dict[str, npt.NDArray[np.float32]]:
        """(n, 128) by what was asked.

        Args:
            name: folder name of the engine's own store.
            engine: preset or folder.
            digest: the engine's.
            asked: query by view name.
            soft_prompts: folder of a tuned prompt, by view name.
        """
        settings = self.settings()
        key = self._key(settings, asked, soft_prompts or {})
        path = self.work / "vectors" / f"{digest}-{self.cut.at:%Y-%m-%d}-{key}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as stored:
                return dict(zip(asked, stored["vectors"].swapaxes(0, 1), strict=True))
        store = evaluation_store(
            self.work / "stores" / name,
            settings,
            household_journey,
            asked,
            engine=engine,
            soft_prompts=soft_prompts,
        )
        rows = pd.DataFrame({"household_id": self.households, AT: self.cut.at.tz_localize("UTC")})
        found = read_embeddings(store, rows, list(asked))
        _write(path, households=self.households, vectors=found)
        return dict(zip(asked, found.swapaxes(0, 1), strict=True))

    def _key(self, settings: Settings, asked: Mapping[str, str], prompts: Mapping[str, str]) -> str:
        """Identity of what the vectors depend on besides engine and cut."""
        tables = LakeTables(settings.lake)
        versions = [
            DeltaTable(tables.path(name)).version() for name in ("behaviour_sequences", "profile_rows")
        ]
        tuned = {view: _prompt_bytes(Path(folder)) for view, folder in prompts.items()}
        hasher = hashlib.blake2b(self.households.tobytes(), digest_size=8)
        said = (household_journey.digest, list(asked.items()), versions, sorted(tuned.items()))
        hasher.update(repr(said).encode())
        return hasher.hexdigest()


def _prompt_bytes(folder: Path) -> str:
    return hashlib.blake2b((folder / "soft_prompt.json").read_bytes(), digest_size=16).hexdigest()


def _write(path: Path, **arrays: npt.NDArray) -> None:
    """Whole or not at all: a run that is stopped leaves no half file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    with half.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    half.replace(path)
