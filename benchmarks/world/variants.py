"""Which engines are trained: the base, the paper's ablations, and the points of the two curves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BASE = "trained"
UNTRAINED = "untrained"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One training: what differs from the base.

    Attributes:
        name: for people and folders.
        paper_loss: how much lower the paper's AUC is than its base (.8104); None where it has no figure.
        engine: changes of the engine's config; objective, train: of those plans.
        space: what training begins with, see ``PretrainPlan``.
        user_share: share of the users whose pairs are trained on.
    """

    name: str
    paper_loss: float | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    space: str = "behaviour"
    user_share: float = 1.0


ABLATIONS: tuple[Variant, ...] = (
    Variant(name="no user token", paper_loss=0.0018, engine={"user_token": False}),
    Variant(name="no modality tokens", paper_loss=0.0016, engine={"modality_tokens": False}),
    Variant(
        name="neither user nor modality tokens",
        paper_loss=0.0039,
        engine={"user_token": False, "modality_tokens": False},
    ),
    Variant(name="no margin filter", paper_loss=0.0057, objective={"margin": None}),
    Variant(name="no next token", paper_loss=0.0043, objective={"next_token_weight": 0.0}),
    Variant(name="no contrastive", paper_loss=0.0437, objective={"contrastive_weight": 0.0}),
    Variant(name="space of texts, not behaviour", space="texts"),
    Variant(name="no outcome and outlook", objective={"outcome_weight": 0.0, "outlook_weight": 0.0}),
)
"""The paper's table (Query-as-Anchor §8), and what is ours."""

SHARES = (0.1, 0.25, 0.5, 1.0)
STEP_SHARES = (0.125, 0.25, 0.5, 1.0)


def scaling() -> tuple[Variant, ...]:
    """The base on growing shares of the users; the last is the base itself."""
    return tuple(
        Variant(name=BASE if share == 1 else f"{share:.0%} of the users", user_share=share)
        for share in SHARES
    )


def steps(num_steps: int) -> tuple[Variant, ...]:
    """The base trained for growing numbers of steps, each with its own schedule; the last is the base."""
    counts = [max(1, round(num_steps * share)) for share in STEP_SHARES]
    return tuple(
        Variant(name=BASE) if count == num_steps else Variant(name=f"{count} steps", train={"steps": count})
        for count in counts
    )


def folder_name(variant: Variant, seed: int) -> str:
    """Where the variant's engine of a seed stands, below the folder of engines."""
    return f"{variant.name.replace(' ', '_').replace('%', 'pc')}-{seed}"
