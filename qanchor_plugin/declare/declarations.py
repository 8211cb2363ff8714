"""Everything declared, as one record that jobs and workers are handed."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qanchor_plugin.declare.checks import reject_unknown_keys
from qanchor_plugin.declare.profile import Profile
from qanchor_plugin.declare.scenario import Scenario
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.identity import digest, scenario_identity


@dataclass(frozen=True, kw_only=True)
class Declarations:
    """Profiles and scenarios of one store, by name.

    ``feast_ext`` makes it from the registry, the only truth about scenarios.
    """

    project: str
    profiles: Mapping[str, Profile]
    scenarios: Mapping[str, Scenario]

    @classmethod
    def of(cls, project: str, profiles: Iterable[Profile], scenarios: Iterable[Scenario]) -> "Declarations":
        """One record of them all.

        Raises:
            DeclarationError: two bodies for one profile name, or a scenario of no profile; all
                faults at once.
        """
        faults: list[str] = []
        by_name: dict[str, Profile] = {}
        for profile in profiles:
            known = by_name.setdefault(profile.name, profile)
            if known.digest != profile.digest:
                faults.append(
                    f"profile {profile.name!r} is declared with two different bodies; "
                    "declare it once and import it, or give the second another name."
                )
        scenario_by_name: dict[str, Scenario] = {}
        for scenario in scenarios:
            if scenario.name in scenario_by_name:
                faults.append(f"scenario {scenario.name!r} is declared twice.")
            scenario_by_name[scenario.name] = scenario
            if scenario.profile not in by_name:
                faults.append(
                    f"scenario {scenario.name!r} is of profile {scenario.profile!r}, which is not declared."
                )
        if faults:
            raise DeclarationError(list(dict.fromkeys(faults)))
        return cls(project=project, profiles=by_name, scenarios=scenario_by_name)

    def profile_of(self, scenario: Scenario) -> Profile:
        """The profile that a scenario is asked of."""
        return self.profiles[scenario.profile]

    def scenario_id(self, scenario: Scenario) -> str:
        """The scenario's identity (32 hex characters); its engine must have been resolved."""
        if scenario.engine_digest is None:
            raise DeclarationError(
                f"scenario {scenario.name!r} has no resolved engine yet; run feast apply first."
            )
        return scenario_identity(
            profile_digest=self.profile_of(scenario).digest,
            engine_digest=scenario.engine_digest,
            query=scenario.query,
            soft_prompt_digest=scenario.soft_prompt_digest,
        )

    @property
    def digest(self) -> str:
        """Identity of everything declared."""
        return digest("declarations", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values."""
        return {
            "project": self.project,
            "profiles": {name: one.to_dict() for name, one in sorted(self.profiles.items())},
            "scenarios": {name: one.to_dict() for name, one in sorted(self.scenarios.items())},
        }

    def to_json(self) -> str:
        """The record as JSON text; ``from_json`` reads it back equal."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Declarations":
        """The record that ``to_json`` wrote; unknown keys are a DeclarationError."""
        given = json.loads(text)
        reject_unknown_keys("declarations", given, {"project", "profiles", "scenarios"})
        return cls.of(
            given["project"],
            [Profile.from_dict(one) for one in given["profiles"].values()],
            [Scenario.from_dict(one) for one in given["scenarios"].values()],
        )
