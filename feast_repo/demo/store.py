"""The store's own steps: applied when a definition changed, materialised when something is not complete."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deltalake import DeltaTable
from feast import FeatureStore
from feast.repo_config import load_repo_config
from feast.repo_operations import apply_total

from feast_repo.raw_tables import INPUTS
from qanchor_plugin import schemas as S
from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.feast_ext.declarations import declarations_from_registry, settings_from_config
from qanchor_plugin.prefix_store import LakeTables

START = datetime(2017, 1, 1, tzinfo=UTC)
END = datetime(2018, 1, 1, tzinfo=UTC)


def opened(root: Path) -> FeatureStore:
    """The feature store of this repository, its registry read anew."""
    return FeatureStore(repo_path=str(root))


def apply(root: Path) -> FeatureStore:
    """Every definition below ``root`` stands in the registry: what `feast apply` does."""
    apply_total(load_repo_config(root, root / "feature_store.yaml"), root, skip_source_validation=False)
    return opened(root)


def declared(store: FeatureStore) -> tuple[Settings, Declarations]:
    """The settings and what the registry declares."""
    return settings_from_config(store.config), declarations_from_registry(store.registry, store.project)


def incomplete(store: FeatureStore, root: Path) -> list[str]:
    """Names of the views that are not complete to END over the raw tables as they stand."""
    settings, declarations = declared(store)
    tables = LakeTables(settings.lake)
    names = [view.name for view in store.list_batch_feature_views()]
    if not _refreshed_since(tables, newest_raw_write(root)):
        return names
    reader = LakeReader(tables)
    return [name for name in names if not _is_complete(name, store, declarations, reader)]


def _is_complete(name: str, store: FeatureStore, declarations: Declarations, reader: LakeReader) -> bool:
    """Feast's record says so, and for a scenario our own: complete under its present identity."""
    done = store.get_feature_view(name).most_recent_end_time
    if done is None or done.replace(tzinfo=done.tzinfo or UTC) < END:
        return False
    scenario = declarations.scenarios.get(name)
    if scenario is None:
        return True
    complete_to = reader.complete_to(name, declarations.scenario_id(scenario))
    return complete_to is not None and complete_to >= int(END.timestamp() * 1_000_000)


def newest_raw_write(root: Path) -> datetime:
    """When a raw table was last written."""
    commits = [DeltaTable(str(root / "data" / "raw" / name)).history(1)[0] for name in INPUTS]
    return datetime.fromtimestamp(max(commit["timestamp"] for commit in commits) / 1000, tz=UTC)


def _refreshed_since(tables: LakeTables, instant: datetime) -> bool:
    """Whether a run was recorded after ``instant``: by commit time, for runs carry the store's clock."""
    if not tables.exists("job_runs"):
        return False
    newest = DeltaTable(tables.path("job_runs")).history(1)[0]["timestamp"]
    return datetime.fromtimestamp(newest / 1000, tz=UTC) > instant


@dataclass(frozen=True, kw_only=True)
class StoredEmbeddings:
    """What stands in scenario_embeddings."""

    num_users: int
    num_scenarios: int
    num_rows: int
    median_num_events: float


def stored_embeddings(settings: Settings) -> StoredEmbeddings:
    """Counts over the newest row of each (user, scenario)."""
    columns = [S.USER, S.SCENARIO, S.SERVED_AT, S.NUM_EVENTS]
    table = LakeTables(settings.lake).read("scenario_embeddings", columns=columns).to_pandas()
    newest = table.sort_values(S.SERVED_AT).drop_duplicates([S.USER, S.SCENARIO], keep="last")
    return StoredEmbeddings(
        num_users=newest[S.USER].nunique(),
        num_scenarios=newest[S.SCENARIO].nunique(),
        num_rows=len(newest),
        median_num_events=float(newest[S.NUM_EVENTS].median()),
    )


def some_users(settings: Settings, num_users: int) -> list[bytes]:
    """Up to ``num_users`` users of the lake, evenly spread over their keys' order."""
    table = LakeTables(settings.lake).read("scenario_embeddings", columns=[S.USER])
    users = sorted(set(table[S.USER].to_pylist()))
    return users[:: max(1, len(users) // num_users)][:num_users]
