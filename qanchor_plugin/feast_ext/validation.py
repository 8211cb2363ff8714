"""Apply-time checks: every declared view at once, all faults in one message, before any write.

``feast plan`` and ``feast apply`` validate data sources first: the first of those calls checks the whole
repo. ``FeatureStore.apply`` does not, so ``update_infra`` repeats the check unless the very same
declarations have just passed it.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from feast import FeatureService
from feast.data_source import DataSource
from feast.repo_config import RepoConfig

from qanchor_plugin.declare import Declarations, Profile, Scenario, Settings
from qanchor_plugin.errors import DeclarationError, QAnchorError
from qanchor_plugin.feast_ext.anchor_source import AnchorSource
from qanchor_plugin.feast_ext.declarations import is_anchor, settings_from_config
from qanchor_plugin.feast_ext.engine_freeze import freeze, resolved
from qanchor_plugin.feast_ext.repo_objects import repo_objects
from qanchor_plugin.feast_ext.source_checks import profile_faults
from qanchor_plugin.identity import digest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_lock = threading.Lock()
_passed: dict[str, set[str]] = {}
"""Digest of declarations that passed in the apply now running -> sources that Feast has shown since."""


def validate_or_raise(config: RepoConfig, data_source: DataSource | None = None) -> None:
    """Every anchor view of the repo can be served, and its engine is frozen.

    Args:
        data_source: the source that Feast shows; the first of an apply or plan does the work, the rest
            pass; one shown again starts another apply.

    Raises:
        DeclarationError: naming all faults.
    """
    sources, services = repo_objects(config)
    if isinstance(data_source, AnchorSource) and not any(data_source is source for source in sources):
        sources.append(data_source)
    if not sources:
        return
    settings = settings_from_config(config)
    faults = _frozen(sources, settings)
    key = _key(settings, sources, services)
    if not _is_due(key, data_source):
        return
    faults += _all_faults(settings, sources, services)
    if faults:
        raise DeclarationError(_once(faults), heading=f"{len(_once(faults))} faults; nothing was written")
    with _lock:
        _passed.clear()
        _passed[key] = _shown(data_source)


def validate_source(config: RepoConfig, source: AnchorSource) -> None:
    """As :func:`validate_or_raise`, for the source's own ``validate``: a check just made is not repeated."""
    sources, services = repo_objects(config)
    known = any(source is one for one in sources)
    settings = settings_from_config(config)
    if known and _key(settings, sources, services) in _passed:
        return
    validate_or_raise(config, source)


def validate_kept_views(config: RepoConfig, views: Iterable[Any]) -> None:
    """The anchor views that an apply keeps can be served.

    Raises:
        DeclarationError: all faults, and how to undo what an SQL registry has already written.
    """
    sources = [view.batch_source for view in views if is_anchor(view)]
    if not sources:
        return
    settings = settings_from_config(config)
    _, services = repo_objects(config)
    unfrozen = _engine_faults_of_written(settings, sources)
    with _lock:
        already = _passed.pop(_key(settings, sources, services), None) is not None
    if already and not unfrozen:
        return
    faults = _once(unfrozen + _all_faults(settings, sources, services))
    if faults:
        names = sorted(source.scenario.name for source in sources)
        raise DeclarationError(faults, heading=f"{len(faults)} faults.{_undo(config, names)}")


def check_declarations(
    settings: Settings, declarations: Declarations, spark: "SparkSession | None"
) -> list[str]:
    """Why these declarations cannot be served, one sentence each; empty when they can.

    Args:
        spark: None starts or finds the process's session when a source must be read.
    """
    faults = [
        fault
        for scenario in declarations.scenarios.values()
        for fault in scenario_faults(settings, scenario, scenario.engine)
    ]
    return _once(faults + _profiles_faults(settings, declarations.profiles.values(), spark))


def scenario_faults(settings: Settings, scenario: Scenario, declared_engine: str | None) -> list[str]:
    """Faults of engine, soft prompt and query length."""
    where = f"scenario {scenario.name!r}"
    try:
        _, facts = resolved(scenario, settings, declared_engine=declared_engine)
        num_tokens = facts.count_query_tokens(scenario.query)
    except QAnchorError as error:
        return [f"{where}: {error}"]
    if num_tokens <= facts.max_query_tokens:
        return []
    return [
        f"{where}: the query has {num_tokens} tokens; engine {facts.name!r} takes at most "
        f"{facts.max_query_tokens}. Shorten it."
    ]


def service_faults(services: Iterable[FeatureService], anchors: Iterable[str]) -> list[str]:
    """Services that Feast would answer from one stored blob, past our answers to misses."""
    names = set(anchors)
    faults = []
    for service in services:
        held = sorted({one.name for one in service.feature_view_projections} & names)
        if getattr(service, "precompute_online", False) and held:
            faults.append(
                f"feature service {service.name!r} has precompute_online=True and anchor views {held}: "
                "misses would never be computed. Remove precompute_online, or the anchors."
            )
    return faults


def _all_faults(
    settings: Settings, sources: Sequence[AnchorSource], services: Sequence[FeatureService]
) -> list[str]:
    faults = _declared_twice(sources)
    for source in sources:
        faults += scenario_faults(settings, source.scenario, source.declared_engine)
    faults += service_faults(services, [source.scenario.name for source in sources])
    return faults + _profiles_faults(settings, [source.profile for source in sources], None)


def _declared_twice(sources: Sequence[AnchorSource]) -> list[str]:
    try:
        Declarations.of(
            "check", [source.profile for source in sources], [source.scenario for source in sources]
        )
    except DeclarationError as error:
        return list(error.faults)
    return []


def _profiles_faults(
    settings: Settings, profiles: Iterable[Profile], spark: "SparkSession | None"
) -> list[str]:
    distinct = {profile.digest: profile for profile in profiles}
    if distinct and spark is None:
        from qanchor_plugin.feast_ext.spark_session import session

        try:
            spark = session(settings)
        except QAnchorError as error:
            return [f"the behaviour sources cannot be read: {error}"]
    return [fault for profile in distinct.values() for fault in profile_faults(spark, profile)]


def _frozen(sources: Iterable[AnchorSource], settings: Settings) -> list[str]:
    faults = []
    for source in sources:
        try:
            freeze(source, settings)
        except QAnchorError as error:
            faults.append(f"scenario {source.scenario.name!r}: {error}")
    return faults


def _engine_faults_of_written(settings: Settings, sources: Iterable[AnchorSource]) -> list[str]:
    """Views that went into the registry without this store's engine."""
    faults = []
    for source in sources:
        scenario, wanted = source.scenario, source.declared_engine or settings.engine
        if scenario.engine_digest is None or scenario.engine != wanted:
            faults.append(
                f"scenario {scenario.name!r} was written with engine {scenario.engine!r}, but this store's "
                f"is {wanted!r}. Call qanchor_plugin.feast_ext.engine_freeze.freeze_all(objects, settings) "
                "before FeatureStore.apply, or use feast apply."
            )
    return faults


def _key(settings: Settings, sources: Sequence[AnchorSource], services: Sequence[FeatureService]) -> str:
    declared = sorted(source.to_json() for source in sources)
    precomputed = sorted(one.name for one in services if getattr(one, "precompute_online", False))
    return digest("checked", settings.lake, settings.engine, declared, precomputed)


def _is_due(key: str, data_source: DataSource | None) -> bool:
    shown = _shown(data_source)
    with _lock:
        if key not in _passed or shown & _passed[key]:
            return True
        _passed[key] |= shown
    return False


def _shown(data_source: DataSource | None) -> set[str]:
    """One anchor source belongs to one view, so Feast shows it once an apply; others may be shared."""
    return {data_source.name} if isinstance(data_source, AnchorSource) else set()


def _once(faults: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(faults))


def _undo(config: RepoConfig, names: Sequence[str]) -> str:
    if config.registry.registry_type != "sql":
        return " Nothing was written"
    return (
        f" The SQL registry has already been written (views {list(names)}). To undo: mend the "
        "declarations and apply again, or take a new view out with "
        f"store.registry.delete_feature_view(name, project={config.project!r})"
    )
