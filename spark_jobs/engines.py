"""Which engine answers which scenarios, as plain records that travel to executors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from qanchor_plugin.declare import Declarations, Profile, Scenario, Settings
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.errors import EngineError, InputDataError


@dataclass(frozen=True, kw_only=True)
class EngineRef:
    """An engine by name and identity: enough for an executor to load the very same one."""

    name: str
    device: str
    digest: str
    prefix_digest: str
    encoder_id: str
    encoder_dim: int
    suffix_knows_time: bool


@dataclass(frozen=True, kw_only=True)
class AskedQuery:
    """A scenario's question with its identity.

    ``ttl_days`` is how long an answer may be served; 0 is for ever.
    """

    scenario: str
    scenario_id: str
    query: str
    soft_prompt: str | None
    ttl_days: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AskedGroup:
    """Scenarios that share one prefix a user: same profile, same engine.

    ``workers`` is the pool that embeds for the tasks; None embeds where they run.
    """

    profile: Profile
    engine: EngineRef
    queries: tuple[AskedQuery, ...]
    workers: WorkerSettings | None = None

    @property
    def name(self) -> str:
        """The profile and the engine, for reports and watermarks."""
        return f"{self.profile.name}/{self.engine.digest[:12]}"


@lru_cache(maxsize=4)
def engine_on_driver(name: str, device: str) -> QueryAnchorEngine:
    """The engine in this process; its sentence encoder is not loaded until it is used."""
    return QueryAnchorEngine.load(name, device=device)


def engine_ref(name: str, device: str) -> EngineRef:
    """The record of an engine, loaded here once to learn its identity."""
    engine = engine_on_driver(name, device)
    return EngineRef(
        name=name,
        device=device,
        digest=engine.digest,
        prefix_digest=engine.prefix_digest,
        encoder_id=engine.encoder_id,
        encoder_dim=engine.encoder_dim,
        suffix_knows_time=engine.suffix_knows_time,
    )


def workers_of(settings: Settings) -> WorkerSettings | None:
    """The pool that embeds for the jobs; None when the executors do."""
    return settings.worker if settings.spark_embeds_on == "workers" else None


def chosen(declarations: Declarations, names: Sequence[str] | None) -> list[Scenario]:
    """The named scenarios, or all.

    Raises:
        InputDataError: a name that is not declared.
    """
    if names is None:
        return list(declarations.scenarios.values())
    unknown = sorted(set(names) - set(declarations.scenarios))
    if unknown:
        raise InputDataError(
            f"scenarios {unknown} are not declared; declared are {sorted(declarations.scenarios)}."
        )
    return [declarations.scenarios[name] for name in dict.fromkeys(names)]


def asked_groups(
    settings: Settings, declarations: Declarations, scenarios: Iterable[Scenario]
) -> list[AskedGroup]:
    """The scenarios by profile and engine, in order of first appearance.

    Raises:
        EngineError: an engine is not the one that a scenario was applied with.
    """
    groups: dict[tuple[str, str], list[AskedQuery]] = {}
    for scenario in scenarios:
        name = scenario.engine or settings.engine
        ref = engine_ref(name, settings.device)
        if scenario.engine_digest != ref.digest:
            raise EngineError(
                f"scenario {scenario.name!r} was applied with engine digest {scenario.engine_digest}; engine "
                f"{name!r} is {ref.digest} now. Run feast apply to register the scenario anew."
            )
        asked = AskedQuery(
            scenario=scenario.name,
            scenario_id=declarations.scenario_id(scenario),
            query=scenario.query,
            soft_prompt=scenario.soft_prompt,
            ttl_days=scenario.ttl / timedelta(days=1),
        )
        groups.setdefault((scenario.profile, name), []).append(asked)
    return [
        AskedGroup(
            profile=declarations.profiles[profile],
            engine=engine_ref(name, settings.device),
            queries=tuple(asked),
            workers=workers_of(settings),
        )
        for (profile, name), asked in groups.items()
    ]
