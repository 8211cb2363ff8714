"""Claims about a user, and the reflection that checks each against the profile."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qanchor_plugin.training.useru.evidence import Evidence, Fact
from qanchor_plugin.training.useru.topics import TOPIC_OF_NAME, is_about

KINDS = ("count", "count_30", "count_90", "days_ago", "none")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One checkable statement.

    Attributes:
        kind: ``count``, ``count_30``, ``count_90``, ``days_ago`` (of a fact), or ``none``: the profile
            shows nothing of a topic.
        about: a fact's text; for ``none`` a topic's name.
        value: the number claimed; 0 for ``none``.
        sentence: how it was worded; "" for our own wording.
    """

    kind: str
    about: str
    value: int = 0
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class Reflection:
    """What remains of an answer once each of its claims was checked.

    Attributes:
        claims: supported ones, corrected where a number was wrong.
        num_checked, num_corrected, num_dropped: claims by outcome.
    """

    claims: tuple[Claim, ...]
    num_checked: int
    num_corrected: int
    num_dropped: int

    @property
    def answer(self) -> str:
        """The answer's text; "" when nothing is supported."""
        return " ".join(worded(claim) for claim in self.claims)


def reflect(claims: Sequence[Claim], evidence: Evidence) -> Reflection:
    """Keep what the profile supports, correct wrong numbers, drop what it does not know.

    A claim said twice is dropped the second time.
    """
    kept: list[Claim] = []
    seen: set[tuple[str, str]] = set()
    num_corrected = 0
    for claim in claims:
        checked = _checked(claim, evidence)
        if checked is None or (checked.kind, checked.about) in seen:
            continue
        seen.add((checked.kind, checked.about))
        num_corrected += checked.value != claim.value
        kept.append(checked)
    return Reflection(
        claims=tuple(kept),
        num_checked=len(claims),
        num_corrected=num_corrected,
        num_dropped=len(claims) - len(kept),
    )


def worded(claim: Claim) -> str:
    """The claim as a sentence: its own when that says the number it should and no other."""
    if claim.sentence and _says_only(claim.sentence, claim):
        return claim.sentence
    about, value = claim.about, claim.value
    times = "once" if value == 1 else "never" if value == 0 else f"{value} times"
    if claim.kind == "none":
        return f"The profile shows nothing about {TOPIC_OF_NAME[about].subject}."
    if claim.kind == "days_ago":
        return f"{about}: last seen {_days(value)}."
    period = {"count": "in all", "count_30": "in the last 30 days", "count_90": "in the last 90 days"}
    return f"{about}: {times} {period[claim.kind]}."


def _checked(claim: Claim, evidence: Evidence) -> Claim | None:
    """The claim as the profile has it, or None where it has no ground."""
    if claim.kind == "none":
        return _checked_absence(claim, evidence)
    fact = evidence.about(claim.about)
    if claim.kind not in KINDS or fact is None:
        return None
    value: int = getattr(fact, claim.kind)
    sentence = claim.sentence if _is_of(fact, claim.sentence) else ""
    return Claim(kind=claim.kind, about=fact.about, value=value, sentence=sentence)


def _checked_absence(claim: Claim, evidence: Evidence) -> Claim | None:
    topic = TOPIC_OF_NAME.get(claim.about)
    if topic is None or not evidence.complete or any(is_about(topic, fact.about) for fact in evidence.facts):
        return None
    return Claim(kind="none", about=claim.about, value=0)


def _is_of(fact: Fact, sentence: str) -> bool:
    return fact.about.lower() in sentence.lower()


_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]+")
_NEUTRAL = frozenset(
    re.findall(
        "[a-z]+",
        """a about activity after ago all an and at before bought by customer day days did event events
        for from had has have household in including is it last latest most newest of on once over past
        purchase purchased purchases recent recently record records seen shows since that the their there
        these they this time times to total user visited was were with within""",
    )
)
"""Words that claim nothing by themselves."""
_PERIOD = re.compile(r"(?:last|past|recent)\s+\d+\s+days?", re.IGNORECASE)


def _says_only(sentence: str, claim: Claim) -> bool:
    """Besides the thing's own name there are neutral words, the claim's period and ``value`` only.

    A sentence that says more may say what the profile does not: it is worded anew.
    """
    rest = re.sub(re.escape(claim.about), " ", sentence, flags=re.IGNORECASE)
    period = {"count_30": "30", "count_90": "90"}.get(claim.kind)
    periods = [number for said in _PERIOD.findall(rest) for number in _NUMBER.findall(said)]
    words = {word.lower() for word in _WORD.findall(rest)}
    if periods != ([period] if period else []) or not words <= _NEUTRAL:
        return False
    return _NUMBER.findall(_PERIOD.sub(" ", rest)) == [str(claim.value)]


def _days(value: int) -> str:
    if value == 0:
        return "on the day of the latest activity"
    return f"{value} day{'' if value == 1 else 's'} before the latest activity"
