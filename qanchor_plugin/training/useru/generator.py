"""Who writes grounded queries and answers: an interface, and a generator that needs no LLM."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qanchor_plugin.training.useru.claims import Claim
from qanchor_plugin.training.useru.evidence import Evidence
from qanchor_plugin.training.useru.topics import Topic, is_about

MAX_CLAIMS = 6


@dataclass(frozen=True, kw_only=True)
class Request:
    """One pair to be written: a topic, and what is known of the user."""

    topic: Topic
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A query and the claims of its answer, not checked yet."""

    query: str
    claims: tuple[Claim, ...]


class Generator(Protocol):
    """Writes drafts; what it claims is checked afterwards, whoever it is."""

    @property
    def generator_id(self) -> str:
        """Name and version, stored with each pair."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[Draft | None]:
        """One draft a request, in order; None where no usable draft came back."""
        ...


_QUERIES = (
    "What does this user's behaviour say about {subject}?",
    "How interested is this user in {subject}?",
    "Does this user care about {subject}?",
    "What has this user done recently that concerns {subject}?",
    "Is {subject} a habit of this user?",
    "How often does {subject} show in this user's profile?",
)


class GroundedGenerator:
    """Queries from templates and claims from the facts themselves: deterministic, no network.

    The wording depends on the user, the cutoff and the topic alone.
    """

    generator_id = "grounded-1"

    def generate(self, requests: Sequence[Request]) -> list[Draft | None]:
        """One draft a request; never None."""
        return [self._draft(request) for request in requests]

    def _draft(self, request: Request) -> Draft:
        evidence, topic = request.evidence, request.topic
        facts = [fact for fact in evidence.facts if is_about(topic, fact.about)]
        query = _QUERIES[_choice(request, len(_QUERIES))].format(subject=topic.subject)
        if not facts:
            return Draft(query=query, claims=(Claim(kind="none", about=topic.name),))
        claims = [Claim(kind="count", about=fact.about, value=fact.count) for fact in facts[: MAX_CLAIMS - 2]]
        newest = min(facts, key=lambda fact: (fact.days_ago, -fact.count, fact.about))
        claims.append(Claim(kind="days_ago", about=newest.about, value=newest.days_ago))
        claims.append(Claim(kind="count_30", about=facts[0].about, value=facts[0].count_30))
        return Draft(query=query, claims=tuple(claims))


def _choice(request: Request, num_choices: int) -> int:
    evidence = request.evidence
    key = evidence.user + evidence.cutoff.to_bytes(8, "little", signed=True) + request.topic.name.encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "little") % num_choices
