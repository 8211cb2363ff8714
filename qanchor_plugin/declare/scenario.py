"""One registered anchor query."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from qanchor_plugin.declare.checks import raise_faults, reject_unknown_keys, slug_faults

MAX_QUERY_CHARS = 2000
"""A first bound without a tokenizer; the engine's own bound in tokens is checked at apply."""

RECOMPUTE_FIRST, RECOMPUTE_BEHIND = ON_PUSH = ("recompute_first", "stale_and_recompute_behind")
"""What a read does whose stored answer lacks an event pushed since."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A business question about a user, and how fresh its answer must be.

    Attributes:
        name: slug; the Feast feature view's name.
        query: the question, in plain language.
        profile: name of the profile it is asked of.
        ttl: how long an answer may be served (zero: for ever).
        engine: preset or folder; None until resolved and frozen at apply.
        engine_digest: identity of that engine; None until resolved.
        soft_prompt: folder of a tuned soft prompt, or None.
        soft_prompt_digest: its identity; None without one.
        online: whether answers go to the online store.
        mode: ``exact``, ``as_served``, or None for the store's default.
        on_push: ``recompute_first``, ``stale_and_recompute_behind``, or None for the former.
    """

    name: str
    query: str
    profile: str
    ttl: timedelta = timedelta(0)
    engine: str | None = None
    engine_digest: str | None = None
    soft_prompt: str | None = None
    soft_prompt_digest: str | None = None
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    online: bool = True
    mode: str | None = None
    on_push: str | None = None

    def __post_init__(self) -> None:
        faults = slug_faults("scenario", self.name)
        where = f"scenario {self.name!r}"
        if not isinstance(self.query, str) or not self.query.strip():
            faults.append(f"{where}: the query is empty; write the question in plain words.")
        elif len(self.query) > MAX_QUERY_CHARS:
            faults.append(
                f"{where}: the query has {len(self.query)} characters, at most {MAX_QUERY_CHARS} are taken."
            )
        if self.ttl < timedelta(0):
            faults.append(f"{where}: ttl is {self.ttl}; it must be zero (for ever) or more.")
        if self.mode not in (None, "exact", "as_served"):
            faults.append(f"{where}: mode is {self.mode!r}; accepted are 'exact' and 'as_served'.")
        if self.on_push not in (None, *ON_PUSH):
            faults.append(f"{where}: on_push is {self.on_push!r}; accepted are {list(ON_PUSH)}.")
        raise_faults(faults)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-like values; ``from_dict`` reads it back equal."""
        body = asdict(self)
        body["tags"] = dict(self.tags)
        if body["on_push"] is None:
            del body["on_push"]  # else the registry's bytes of every older view would change
        body["ttl_seconds"] = body.pop("ttl").total_seconds()
        return body

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Scenario":
        """The record that ``to_dict`` wrote; unknown keys are a DeclarationError."""
        accepted = (set(cls.__dataclass_fields__) - {"ttl"}) | {"ttl_seconds"}
        reject_unknown_keys("scenario", given, accepted)
        rest = {key: value for key, value in given.items() if key != "ttl_seconds"}
        return cls(**rest, ttl=timedelta(seconds=given["ttl_seconds"]))
