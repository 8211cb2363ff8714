"""Ten known tasks in the paper's three groups (Query-as-Anchor §8).

A user's true propensity is sigmoid(intercept + weights . drivers); drivers are latent, and taken at
the cutoff. Intercepts are set so that the stated share of the population is positive.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticTask:
    """One task and how its truth is made.

    Attributes:
        name, group: as in the paper.
        query: the anchor query, in plain words.
        rate: share of the population that is positive (0 to 1).
        interests: weight of each interest's standardised strength at the cutoff.
        drivers: weight of ``activity`` (standardised log rate at the cutoff), ``thrift`` (a trait
            that no event shows), and of life events by name (their fading effect, 0 to 1).
    """

    name: str
    group: str
    query: str
    rate: float
    interests: Mapping[str, float] = field(default_factory=dict)
    drivers: Mapping[str, float] = field(default_factory=dict)


def _task(group: str, name: str, query: str, rate: float, interests: dict, drivers: dict) -> SyntheticTask:
    return SyntheticTask(
        name=name,
        group=group,
        query=query,
        rate=rate,
        interests=MappingProxyType(interests),
        drivers=MappingProxyType(drivers),
    )


SYNTHETIC_TASKS: tuple[SyntheticTask, ...] = (
    _task("engagement", "active", "Will this user be active in the next two months?", 0.50,
          {"bargains": 0.4}, {"activity": 1.5}),
    _task("engagement", "concert", "Will this user buy a concert ticket or go to a festival?", 0.08,
          {"music": 1.3, "cinema": 0.3}, {"activity": 0.3}),
    _task("engagement", "login", "Will this user log in on a new phone or tablet?", 0.25,
          {"electronics": 1.1, "gaming": 0.6}, {"activity": 0.5}),
    _task("engagement", "forest", "Will this user plant trees and collect green points?", 0.15,
          {"ecology": 1.4, "gardening": 0.4}, {}),
    _task("risk", "fraud", "Is this user at risk of gambling losses and fraud?", 0.04,
          {"gambling": 1.2, "borrowing": 0.5}, {"thrift": -0.6}),
    _task("risk", "money", "Will this user fall behind on a loan or need cash?", 0.08,
          {"borrowing": 1.2}, {"job_loss": 1.5, "thrift": -0.6}),
    _task("marketing", "takeout", "Will this user order takeaway food delivery?", 0.25,
          {"takeaway": 1.4, "cooking": -0.4}, {"activity": 0.3}),
    _task("marketing", "brand", "Will this user buy from a luxury or fashion brand?", 0.12,
          {"fashion": 1.3, "bargains": -0.3}, {}),
    _task("marketing", "promo", "Will this user answer a discount coupon or a promotion?", 0.18,
          {"bargains": 1.3}, {"new_baby": 1.0, "thrift": 0.4}),
    _task("marketing", "value", "Is this user a wealthy customer who will invest in funds?", 0.10,
          {"investing": 1.4, "travel": 0.4}, {}),
)  # fmt: skip

GROUPS = ("engagement", "risk", "marketing")
