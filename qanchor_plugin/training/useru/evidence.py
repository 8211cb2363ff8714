"""What a user's profile says, as facts that a claim can be checked against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qanchor_plugin.sequence import UserSlice
from qanchor_plugin.sequence.slice import MICROS_PER_DAY, Summary
from qanchor_plugin.training.useru.topics import topics_about


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing a user did, with its counts over the visible window.

    Attributes:
        about: the thing's own text.
        modality: where it was seen.
        count, count_30, count_90: events in all, and in the last 30 and 90 days before the user's
            last event.
        days_ago: days from its last event to the user's last event.
    """

    about: str
    modality: str
    count: int
    count_30: int
    count_90: int
    days_ago: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that may be said of a user at a cutoff.

    Attributes:
        user, cutoff: as in ``UserSlice``.
        facts: the most frequent first; ties by text.
        texts: rows of tabular modalities, as text.
        complete: no fact was left out, so absence from ``facts`` is absence from the profile.
    """

    user: bytes
    cutoff: int
    facts: tuple[Fact, ...]
    texts: tuple[str, ...]
    complete: bool

    def about(self, name: str) -> Fact | None:
        """The fact of that name (case and spaces aside), or None."""
        wanted = _plain(name)
        return next((fact for fact in self.facts if _plain(fact.about) == wanted), None)

    def to_dict(self, *, topic: str, most: int) -> dict[str, Any]:
        """Facts and texts as JSON-like values, for a person to read beside a pair.

        Args:
            topic: facts about this topic stand first.
            most: facts kept; ``num_facts`` says how many there are.
        """
        ordered = sorted(self.facts, key=lambda fact: topic not in topics_about(fact.about))
        return {
            "facts": [vars(fact) for fact in ordered[:most]],
            "num_facts": len(self.facts),
            "texts": list(self.texts),
        }


def evidence_of(user_slice: UserSlice, text_of: Mapping[bytes, str]) -> Evidence:
    """Facts of a slice: its groups, and the texts of modalities that have none.

    Args:
        user_slice: the user at a cutoff.
        text_of: text of every id that the slice holds.
    """
    as_of = user_slice.as_of or 0
    facts: dict[tuple[str, str], Fact] = {}
    for group in user_slice.groups:
        text = text_of[group.text_id.tobytes()]
        facts.setdefault((group.modality, _plain(text)), _fact(text, group.modality, group.summary, as_of))
    grouped = {modality for modality, _ in facts}
    capped = user_slice.num_groups_visible > len(user_slice.groups)
    texts: list[str] = []
    for modality in user_slice.modalities:
        capped |= modality.num_visible > len(modality.text_id) and modality.name not in grouped
        if modality.kind == "tabular":
            texts += [text_of[one.tobytes()] for one in modality.text_id]
        elif modality.name not in grouped:
            for fact in _facts_of_texts(modality.name, modality.text_id, modality.event_at, text_of, as_of):
                facts.setdefault((modality.name, _plain(fact.about)), fact)
    ordered = sorted(facts.values(), key=lambda fact: (-fact.count, fact.days_ago, fact.about, fact.modality))
    return Evidence(
        user=user_slice.user,
        cutoff=user_slice.cutoff,
        facts=tuple(ordered),
        texts=tuple(texts),
        complete=not capped,
    )


def _fact(text: str, modality: str, summary: Summary, as_of: int) -> Fact:
    return Fact(
        about=text,
        modality=modality,
        count=summary.count,
        count_30=summary.count_30,
        count_90=summary.count_90,
        days_ago=int((as_of - summary.last_at) // MICROS_PER_DAY),
    )


def _facts_of_texts(
    modality: str, text_id: np.ndarray, event_at: np.ndarray, text_of: Mapping[bytes, str], as_of: int
) -> list[Fact]:
    instants: dict[str, list[int]] = {}
    for one, at in zip(text_id, event_at.tolist(), strict=True):
        instants.setdefault(text_of[one.tobytes()], []).append(at)
    return [
        Fact(
            about=text,
            modality=modality,
            count=len(at),
            count_30=sum(as_of - one < 30 * MICROS_PER_DAY for one in at),
            count_90=sum(as_of - one < 90 * MICROS_PER_DAY for one in at),
            days_ago=(as_of - max(at)) // MICROS_PER_DAY,
        )
        for text, at in instants.items()
    ]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
