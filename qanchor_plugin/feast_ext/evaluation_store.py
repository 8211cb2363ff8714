"""A feature store beside yours, over the same lake: questions to be evaluated before any is registered.

The vectors come through ``get_historical_features``, so the engine that is evaluated is the one served.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from feast import Entity, FeatureStore, ValueType

from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.feast_ext.anchor_view import anchor_view
from qanchor_plugin.schemas import EMBEDDING_DIM

AT = "event_timestamp"


def evaluation_store(
    folder: Path,
    settings: Settings,
    profile: Profile,
    questions: Mapping[str, str],
    *,
    engine: str,
    soft_prompts: Mapping[str, str] | None = None,
) -> FeatureStore:
    """An applied store in ``folder``, one anchor view a question, reading the lake of ``settings``.

    The process must stand where the profile's sources are relative to. Nothing is written outside ``folder``.

    Args:
        folder: holds feature_store.yaml, a registry and an online store; earlier ones are replaced.
        settings: of the store whose lake is read.
        profile: whom the questions are about.
        questions: query by view name (a slug).
        engine: preset, or folder written by ``save_pretrained``.
        soft_prompts: folder of a tuned soft prompt by view name, for some of the views.

    Raises:
        DeclarationError: a question cannot be served by the engine over this lake; names all faults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("registry.db", "online_store.db"):
        (folder / name).unlink(missing_ok=True)
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(_config(settings, engine)), encoding="utf-8")
    store = FeatureStore(repo_path=str(folder))
    entities = [
        Entity(name=one.name, join_keys=[one.join_key], value_type=ValueType[one.value_type])
        for one in profile.entities
    ]
    prompts = soft_prompts or {}
    views = [
        anchor_view(name, query, profile, soft_prompt=prompts.get(name), online=False)
        for name, query in questions.items()
    ]
    store.apply([*entities, *views])
    return store


def read_embeddings(store: FeatureStore, rows: pd.DataFrame, views: Sequence[str]) -> npt.NDArray[np.float32]:
    """(n, views, 128) float32: every view's embedding of every row, as of its instant, in the rows' order.

    Args:
        rows: join keys and ``event_timestamp``, one row a user.

    Raises:
        InputDataError: a row's user is not in the lake; counts them and shows the first.
    """
    found = store.get_historical_features(
        entity_df=rows, features=[f"{name}:embedding" for name in views], full_feature_names=True
    ).to_df()
    return embeddings_of(found, rows, views)


def embeddings_of(found: pd.DataFrame, rows: pd.DataFrame, views: Sequence[str]) -> npt.NDArray[np.float32]:
    """The same out of an answer with full feature names that was read already."""
    keys = [name for name in rows.columns if name != AT]
    absent = found[f"{views[0]}__embedding"].isna().to_numpy()
    if absent.any():
        first = rows.loc[absent.nonzero()[0][:1], keys].to_dict("records")
        raise InputDataError(
            f"{int(absent.sum())} of {len(rows)} rows name users that the lake does not know, the first "
            f"{first}. Leave them out, or run feast materialize over sources that hold their behaviour."
        )
    stacked = np.empty((len(rows), len(views), EMBEDDING_DIM), np.float32)
    for place, name in enumerate(views):
        stacked[:, place] = np.stack(found[f"{name}__embedding"].to_list())
    return stacked


def _config(settings: Settings, engine: str) -> dict[str, object]:
    section: dict[str, object] = {
        "lake": settings.lake,
        "engine": engine,
        "device": settings.device,
        "log_folder": settings.log_folder,
        "spark_conf": dict(settings.spark_conf),
        "users_per_batch": settings.users_per_batch,
    }
    if settings.clock is not None:
        section["clock"] = settings.clock.isoformat()
    if settings.spark_master is not None:
        section["spark_master"] = settings.spark_master
    return {
        "project": "evaluation",
        "provider": "qanchor_plugin.feast_ext.provider.QAnchorProvider",
        "entity_key_serialization_version": 3,
        "registry": {"path": "registry.db", "enable_online_feature_view_versioning": True},
        "online_store": {"type": "sqlite", "path": "online_store.db"},
        "offline_store": {"type": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"},
        "batch_engine": {"type": "qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine"},
        "qanchor": section,
    }
