"""Freezing: which engine, exactly, a declared view's vectors come from.

``engine=None`` means the store's default. It must become a digest before Feast writes the registry, for
Feast versions a view by its field tags. See docs/decisions/0003-engine-frozen-at-apply.md.
"""

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from feast import FeatureView

from qanchor_plugin.declare import Profile, Scenario, Settings
from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.feast_ext.engine_facts import EngineFacts, engine_facts, soft_prompt_facts
from qanchor_plugin.feast_ext.tags import field_tags, view_tags
from qanchor_plugin.schemas import EMBEDDING

_lock = threading.Lock()
_open_store: list[Settings] = []


def store_opened(settings: Settings) -> None:
    """Afterwards, sources that are written to a registry freeze their engine by these settings.

    The provider calls it when a store makes it. Feast hands a source no configuration when it writes
    it, and ``FeatureStore.apply`` calls nothing of ours with one before.
    """
    with _lock:
        _open_store[:] = [settings]


def freeze_on_write(source: AnchorSource) -> None:
    """The source's engine is frozen if it was declared here and a store of ours is open; else nothing."""
    with _lock:
        settings = _open_store[0] if _open_store else None
    if settings is not None and source.view is not None:
        freeze(source, settings)


def freeze(source: AnchorSource, settings: Settings) -> None:
    """Scenario, field tags and view tags name the engine by its digest.

    A source read from a registry is left as it stands: it was frozen when it was applied.

    Raises:
        EngineError: engine or soft prompt not found, or the soft prompt is of another engine.
    """
    view = source.view
    if view is None:
        return
    scenario, facts = resolved(source.scenario, settings, declared_engine=source.declared_engine)
    source.scenario = scenario
    _write_tags(view, scenario, source.profile, facts)


def freeze_all(objects: Iterable[Any], settings: Settings) -> None:
    """Every anchor view among these Feast objects is frozen: for use before ``FeatureStore.apply``."""
    for one in objects:
        if isinstance(one, FeatureView) and isinstance(one.batch_source, AnchorSource):
            freeze(one.batch_source, settings)


def resolved(
    scenario: Scenario, settings: Settings, *, declared_engine: str | None = None
) -> tuple[Scenario, EngineFacts]:
    """The scenario with engine, digest and soft prompt digest filled in, and the engine's facts.

    Args:
        declared_engine: what the person wrote; None takes the store's default.

    Raises:
        EngineError: engine or soft prompt not found, or the soft prompt is of another engine.
    """
    engine = declared_engine or settings.engine
    facts = engine_facts(engine, settings.device)
    folder, prompt_digest = None, None
    if scenario.soft_prompt is not None:
        folder = str(Path(scenario.soft_prompt).resolve())  # a server or job may stand in another folder
        prompt_digest = soft_prompt_facts(folder, facts)
    frozen = replace(
        scenario,
        engine=engine,
        engine_digest=facts.digest,
        soft_prompt=folder,
        soft_prompt_digest=prompt_digest,
    )
    return frozen, facts


def _write_tags(view: FeatureView, scenario: Scenario, profile: Profile, facts: EngineFacts) -> None:
    """In place: projections and services share these Field objects."""
    tags = field_tags(scenario, profile, projection_digest=facts.projection_digest)
    for field in view.features:
        if field.name == EMBEDDING:
            field.tags.clear()
            field.tags.update(tags)
    view.tags = view_tags(scenario, profile)
