"""What an outcome question can ask about: actions of event modalities, from declared names only.

An action is any event of a modality, the events of one group value, or those of a word that several
values of a key share (``baby`` of BABY FOODS and BABY HBC). Names are lower case. Values and words of
one modality that read the same are one action: the union of their events.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qanchor_plugin.declare import Modality

MIN_WORD_LETTERS = 4
WORD_VALUES = (2, 12)
"""A word is an action when it stands in this many values of a key: more say nothing in particular."""

_WORDS = re.compile(rf"[^\W\d_]{{{MIN_WORD_LETTERS},}}")


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that a user can do.

    Attributes:
        modality: name of the event modality.
        name: of the group value or word, lower case; "" is any event of the modality.
        values: text ids of the group values that make an event count (none for any event).
    """

    modality: str
    name: str
    values: frozenset[bytes] = frozenset()

    @property
    def phrase(self) -> str:
        """The action as words: ``purchases of beer``, or ``purchases``."""
        plain = self.modality.replace("_", " ")
        return f"{plain} of {self.name}" if self.name else plain


def actions_of(
    modality: Modality, values_by_key: Iterable[Iterable[bytes]], text_of: Mapping[bytes, str]
) -> list[Action]:
    """Every action of a modality, any event first, then by name.

    Args:
        modality: the modality.
        values_by_key: for each declared group key the distinct text ids that occur.
        text_of: their texts.
    """
    members: dict[str, set[bytes]] = {}
    for values in values_by_key:
        by_word: dict[str, set[bytes]] = {}
        for value in values:
            name = " ".join(text_of[value].lower().split())
            members.setdefault(name, set()).add(value)
            for word in _WORDS.findall(name):
                by_word.setdefault(word, set()).add(value)
        for word, sharing in by_word.items():
            if WORD_VALUES[0] <= len(sharing) <= WORD_VALUES[1]:
                members.setdefault(word, set()).update(sharing)
    named = [
        Action(modality=modality.name, name=name, values=frozenset(members[name])) for name in sorted(members)
    ]
    return [Action(modality=modality.name, name=""), *named]


_OF_ANY = (
    "Will this {entity} have any {what} in the next {days} days?",
    "How often will this {entity} have {what} in the next {days} days?",
    "Will this {entity} stop having {what}?",
    "Is this {entity} active in {what}?",
)
_OF_NAMED = (
    "Will this {entity} have {what} in the next {days} days?",
    "How often will this {entity} have {what} in the next {days} days?",
    "Does this {entity} have {what}?",
    "Does this {entity} care for {name}?",
    "{what}",
    "{name}",
)
_ANSWERS = ("no {what}", "{what} once", "{what} two to four times", "{what} five times or more")
LEAST_COUNTS = (0, 1, 2, 5)
"""The least count of each answer of the scale."""


def num_wordings(action: Action) -> int:
    """How many ways there are to ask for an action."""
    return len(_OF_NAMED if action.name else _OF_ANY)


def worded_query(action: Action, wording: int, *, entity: str, days: int) -> str:
    """The question in one of its wordings (0 to ``num_wordings``)."""
    template = (_OF_NAMED if action.name else _OF_ANY)[wording]
    return template.format(entity=entity, what=action.phrase, name=action.name, days=days)


def names_days(action: Action, wording: int) -> bool:
    """Whether that wording says how many days it is about."""
    return "{days}" in (_OF_NAMED if action.name else _OF_ANY)[wording]


def worded_answers(action: Action) -> tuple[str, ...]:
    """The four answers, from none to five times or more."""
    return tuple(answer.format(what=action.phrase) for answer in _ANSWERS)
