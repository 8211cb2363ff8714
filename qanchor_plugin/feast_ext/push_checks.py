"""Apply-time checks of push views: every event is written once, and reaches every profile that reads it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from qanchor_plugin.declare import Profile
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.declarations import is_anchor
from qanchor_plugin.feast_ext.push_view import PushedSource, is_push_view, same_place


def check_push_views(views: Iterable[Any]) -> None:
    """Nothing when the push views among these Feast views are sound beside its anchor views.

    Raises:
        DeclarationError: all faults in one message.
    """
    kept = list(views)
    pushed = {view.name: view.batch_source for view in kept if is_push_view(view)}
    profiles = [view.batch_source.profile for view in kept if is_anchor(view)]
    faults = push_faults(pushed, profiles)
    if faults:
        raise DeclarationError(faults)


def push_faults(pushed: Mapping[str, PushedSource], profiles: Iterable[Profile]) -> list[str]:
    """What is wrong with these push views (by name), one sentence each.

    Args:
        profiles: of the anchor views declared beside them.
    """
    faults = []
    taking: dict[str, list[str]] = defaultdict(list)
    for name, source in pushed.items():
        taking[source.push].append(name)
    for push, names in taking.items():
        if len(names) > 1:
            faults.append(
                f"views {sorted(names)} all take the push source {push!r}, so an event would be "
                "written more than once. Declare one: push_view(source, [profile, another_profile])."
            )
    for profile in {one.digest: one for one in profiles}.values():
        for name, source in pushed.items():
            faults += _left_out(name, source, profile)
    return faults


def _left_out(name: str, source: PushedSource, profile: Profile) -> list[str]:
    missing = [
        modality.name
        for modality in profile.modalities
        if same_place(modality.source, source.spec) and modality.sequence_digest not in source.targets
    ]
    if not missing:
        return []
    return [
        f"push view {name!r} brings the rows of source {source.spec.name!r}, but not to the modalities "
        f"{missing} of profile {profile.name!r}, which read it too. Name that profile in "
        "push_view(source, [...])."
    ]
