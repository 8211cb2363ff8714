"""Embeddings of the world's users at the cutoff: through Feast, and by the engine directly.

The base figures are read through ``get_historical_features``, as a trainer would. Ablations and curves,
many engines over some thousand users, take the engine directly; :func:`largest_difference` says how far
the two ways differ.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.world.declarations import Place
from qanchor_plugin.backend import LocalBackend
from qanchor_plugin.backend.protocol import Ask
from qanchor_plugin.declare import EntityRef
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.feast_ext import anchor_view

Float32 = npt.NDArray[np.float32]
ENTITY_KEY_VERSION = 3


def entity_keys(entity: EntityRef, users: Sequence[int]) -> list[bytes]:
    """Feast's serialised keys of these users."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return [
        serialize_entity_key(
            EntityKey(join_keys=[entity.join_key], entity_values=[Value(int64_val=int(user))]),
            entity_key_serialization_version=ENTITY_KEY_VERSION,
        )
        for user in users
    ]


def embed_directly(
    place: Place, engine: str, queries: Mapping[str, str], users: Sequence[int]
) -> dict[str, Float32]:
    """By name of query, (n, 128) embeddings of ``users`` at the cutoff, by ``LocalBackend``.

    Args:
        engine: preset or folder.

    Raises:
        InputDataError: a user that the lake has never seen.
    """
    backend = LocalBackend(place.settings())
    asked = [Ask(profile=place.profile, query=query, engine=engine) for query in queries.values()]
    answers = backend.embed(entity_keys(place.profile.entities[0], users), place.cutoff_us, asked)
    unseen = [int(user) for user, found in zip(users, answers, strict=True) if None in found]
    if unseen:
        raise InputDataError(f"the lake of {place.folder} has never seen users {unseen[:10]}; make it anew.")
    made = np.array([[one.embedding for one in found if one is not None] for found in answers], np.float32)
    return {name: made[:, column] for column, name in enumerate(queries)}


def embed_through_feast(
    place: Place, engine: str, queries: Mapping[str, str], users: Sequence[int], repo: Path
) -> dict[str, Float32]:
    """The same, declared as ten anchor views in a store of its own and read with
    ``get_historical_features`` at the labels' cutoff.

    Args:
        repo: folder of the store; made when it is not there.
    """
    from feast import Entity, FeatureStore, ValueType
    from feast.repo_config import RepoConfig

    repo.mkdir(parents=True, exist_ok=True)
    settings = place.settings()
    config = RepoConfig(
        project="world",
        provider="qanchor_plugin.feast_ext.provider.QAnchorProvider",
        registry={"path": str(repo / "registry.db"), "enable_online_feature_view_versioning": True},
        online_store={"type": "sqlite", "path": str(repo / "online.db")},
        offline_store={"type": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"},
        batch_engine={"type": "qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine"},
        entity_key_serialization_version=ENTITY_KEY_VERSION,
        repo_path=repo,
        qanchor={
            "lake": settings.lake,
            "clock": place.world.cutoff.isoformat(),
            "engine": engine,
            "device": settings.device,
            "log_folder": settings.log_folder,
            "spark_master": settings.spark_master,
        },
    )
    store = FeatureStore(config=config)
    profile, key = place.profile, place.profile.entities[0]
    entity = Entity(name=key.name, join_keys=[key.join_key], value_type=ValueType[key.value_type])
    views = [anchor_view(name=name, query=query, profile=profile) for name, query in queries.items()]
    store.apply([entity, *views])
    asked = pd.DataFrame({key.join_key: list(users), "event_timestamp": place.world.cutoff})
    refs = [f"{name}:embedding" for name in queries]
    read = store.get_historical_features(asked, refs, full_feature_names=True).to_df()
    read = read.set_index(key.join_key).loc[list(users)]
    return {name: np.stack(read[f"{name}__embedding"].to_list()).astype(np.float32) for name in queries}


def largest_difference(one: Mapping[str, Float32], other: Mapping[str, Float32]) -> float:
    """The largest absolute difference of any number of the same users' embeddings."""
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)
