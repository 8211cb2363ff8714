"""Tags of anchor views: what the UI shows, and what makes a new version.

Feast versions a view by its fields and not by its source, so the embedding field carries the digests of
everything that shapes the vector.
"""

from qanchor_plugin.declare import Profile, Scenario
from qanchor_plugin.identity import digest

PREFIX = "qanchor."
MODE = "qanchor.mode"
ON_PUSH = "qanchor.on_push"
ADHOC_PROFILE = "qanchor.adhoc_profile"


def field_tags(
    scenario: Scenario, profile: Profile, *, projection_digest: str | None = None
) -> dict[str, str]:
    """The embedding field's tags; a change of any makes a new version of the view.

    Engine, soft prompt and projection are absent until the engine is frozen.
    """
    found = {
        "qanchor.query": scenario.query,
        "qanchor.query_digest": digest("query", scenario.query),
        "qanchor.profile_digest": profile.digest,
        "qanchor.engine_digest": scenario.engine_digest,
        "qanchor.soft_prompt_digest": scenario.soft_prompt_digest,
        "qanchor.projection_digest": projection_digest,
    }
    return {key: value for key, value in found.items() if value is not None}


def view_tags(scenario: Scenario, profile: Profile) -> dict[str, str]:
    """The view's tags: the person's own, and ours for people who look at the UI."""
    ours = {
        "qanchor.query": scenario.query,
        "qanchor.profile": profile.name,
        "qanchor.modalities": ", ".join(modality.name for modality in profile.modalities),
        "qanchor.window": "all history" if profile.window is None else str(profile.window),
        MODE: scenario.mode,
        ON_PUSH: scenario.on_push,
        "qanchor.engine": scenario.engine,
        "qanchor.engine_digest": scenario.engine_digest,
        "qanchor.soft_prompt": scenario.soft_prompt,
    }
    return {**scenario.tags, **{key: value for key, value in ours.items() if value is not None}}
