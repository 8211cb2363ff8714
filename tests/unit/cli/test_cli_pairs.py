"""What the options of ``qanchor pairs`` become."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qanchor_plugin.cli.pairs import Asked, generator_of, plan_of, shares
from qanchor_plugin.cli.repo import Repo
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import DeclarationError, InputDataError
from qanchor_plugin.training.useru import PairCounts

CLOCK = datetime(2018, 1, 1, tzinfo=UTC)
REPO = Repo(path=Path("/repo"), config=None, settings=Settings(lake="/repo/lake", clock=CLOCK))
ASKED = Asked(
    until=None,
    profile=None,
    cutoffs=3,
    topics=1,
    questions=7,
    users_per_shard=9,
    seed=5,
    generator="grounded",
    model=None,
    max_requests_per_minute=60.0,
    price="0,0",
    estimate=False,
    yes=False,
    sample=0,
)


def test_a_plan_sees_nothing_from_the_clock_or_from_until_on() -> None:
    plan = plan_of(ASKED, REPO)
    assert plan.known_until == CLOCK.timestamp() * 1e6
    assert (plan.num_cutoffs, plan.num_topics, plan.num_absent) == (3, 1, 1)
    assert (plan.questions_per_shard, plan.users_per_shard, plan.seed) == (7, 9, 5)
    earlier = plan_of(replace(ASKED, until="2017-06-01"), REPO)
    assert earlier.known_until == datetime(2017, 6, 1, tzinfo=UTC).timestamp() * 1e6


def test_an_endpoint_has_its_model_price_pace_and_a_cache_in_the_lake() -> None:
    given = replace(ASKED, generator="http://localhost:8000/v1", model="qwen", price="0.15,0.6")
    ref = generator_of(given, REPO, "secret")
    assert ref.cache == "/repo/lake/_prompts/answers.sqlite"
    assert ref.endpoint is not None
    assert ref.endpoint.api_key == "secret"
    assert ref.endpoint.dollars_per_million_answer_tokens == 0.6
    assert "secret" not in repr(ref) + ref.name
    shared = ref.shared_by(4).endpoint
    assert shared is not None
    assert (shared.requests_per_minute, shared.concurrency) == (15.0, 1)
    assert generator_of(ASKED, REPO, "secret").endpoint is None


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"model": None}, InputDataError, "needs --model NAME"),
        ({"price": "cheap"}, InputDataError, "'cheap' is no price"),
        ({"generator": "gpt"}, DeclarationError, "write it as http://host:port/v1"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_named(changed: dict, error: type, said: str) -> None:
    given = {"generator": "http://localhost/v1", "model": "qwen"} | changed
    with pytest.raises(error, match=said):
        generator_of(replace(ASKED, **given), REPO, "")


def test_shares_are_of_drafts_and_claims() -> None:
    counts = PairCounts(num_asked=8, num_uqa=6, num_claims=20, num_corrected=5, num_dropped=1)
    assert shares(counts) == {"yield_share": 0.75, "corrected_share": 0.25, "dropped_share": 0.05}
