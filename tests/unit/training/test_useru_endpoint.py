"""The endpoint client against a real HTTP server on this machine."""

import json

import pytest

from qanchor_plugin.errors import BackendError, DeclarationError, LakeError
from qanchor_plugin.sequence import slice_at
from qanchor_plugin.training.useru.claims import Claim
from qanchor_plugin.training.useru.endpoint import EndpointGenerator, EndpointSettings
from qanchor_plugin.training.useru.evidence import evidence_of
from qanchor_plugin.training.useru.generator import Request
from qanchor_plugin.training.useru.prompt import prompt_messages, read_draft
from qanchor_plugin.training.useru.prompt_cache import PromptCache
from qanchor_plugin.training.useru.topics import TOPICS
from tests.unit.training.llm_endpoint import Endpoint
from tests.unit.training.useru_world import DAY, PROFILE, World

GOOD = json.dumps(
    {"query": "Does this user drink beer?", "claims": [{"kind": "count", "about": "BEER", "value": 2}]}
)


@pytest.fixture
def asked() -> list[Request]:
    world = World()
    history = world.history(1, [(1, "lager", "BEER", "GROCERY"), (2, "ale", "BEER", "GROCERY")])
    evidence = evidence_of(slice_at(history, PROFILE, 9 * DAY), world.text_of)
    return [Request(topic=topic, evidence=evidence) for topic in TOPICS[:4]]


@pytest.fixture
def cache(tmp_path):
    with PromptCache(tmp_path / "answers.sqlite") as opened:
        yield opened


def generator(server: Endpoint, cache: PromptCache, **changes) -> EndpointGenerator:
    given = {
        "base_url": server.url,
        "model": "tiny",
        "api_key": "secret",
        "requests_per_minute": 1e6,
        "first_wait_seconds": 0.01,
        "concurrency": 1,
        "timeout_seconds": 5.0,
        **changes,
    }
    return EndpointGenerator(EndpointSettings(**given), cache)


def test_drafts_come_back_in_order_and_are_asked_for_once(asked, cache):
    with Endpoint((200, GOOD, 0)) as server:
        drafts = generator(server, cache, concurrency=4).generate(asked)
        assert [draft.claims for draft in drafts] == [(Claim(kind="count", about="BEER", value=2),)] * 4
        path, key, body = server.seen[0]
        assert (path, key, body["model"], body["temperature"]) == (
            "/v1/chat/completions",
            "Bearer secret",
            "tiny",
            0,
        )
        assert generator(server, cache).generate(asked) == drafts
        assert len(server.seen) == 4  # the second run read the cache
        generator(server, cache, model="other").generate(asked[:1])
        assert len(server.seen) == 5  # another model is another prompt


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_retried(asked, cache, status):
    with Endpoint((status, "", 0), (status, "", 0), (200, GOOD, 0)) as server:
        assert generator(server, cache).generate(asked[:1])[0] is not None
        assert len(server.seen) == 3


def test_a_slow_endpoint_is_tried_again_then_named(asked, cache):
    with Endpoint((200, GOOD, 0.3)) as server:
        slow = generator(server, cache, timeout_seconds=0.05, max_attempts=2)
        with pytest.raises(BackendError, match="failed 2 times, last: ReadTimeout"):
            slow.generate(asked[:1])


def test_one_request_that_never_comes_back_loses_nothing_else(asked, cache):
    with Endpoint((200, GOOD, 0), (503, "", 0), (503, "", 0), (200, GOOD, 0)) as server:
        drafts = generator(server, cache, max_attempts=2).generate(asked)
        assert [draft is None for draft in drafts] == [False, True, False, False]
        assert all(generator(server, cache).generate(asked))  # asked again, it came
        assert len(server.seen) == 6


def test_an_endpoint_that_goes_down_stops_the_run(asked, cache):
    with Endpoint((200, GOOD, 0), (503, "", 0)) as server:
        asking = generator(server, cache, max_attempts=1, max_given_up=2)
        with pytest.raises(BackendError, match="failed 1 times, last: HTTP 503"):
            asking.generate(asked * 9)
        assert asking.estimate(asked).num_cached == 1


def test_a_dead_endpoint_is_named(asked, cache):
    with Endpoint((200, GOOD, 0)) as server:
        pass
    with pytest.raises(BackendError, match="ConnectionError"):
        generator(server, cache, max_attempts=2).generate(asked[:1])


def test_a_refusal_is_not_retried(asked, cache):
    with Endpoint((401, "", 0)) as server:
        with pytest.raises(BackendError, match="HTTP 401") as raised:
            generator(server, cache).generate(asked[:1])
        assert len(server.seen) == 1
        assert "secret" not in str(raised.value)


def test_an_interrupted_run_goes_on_where_it_stopped(asked, cache):
    with Endpoint((200, GOOD, 0), (200, GOOD, 0), (400, "", 0), (200, GOOD, 0)) as server:
        first = generator(server, cache)
        with pytest.raises(BackendError):
            first.generate(asked)
        assert first.estimate(asked).num_cached >= 2
        before = len(server.seen)
        assert all(generator(server, cache).generate(asked))
        assert len(server.seen) - before <= 2


@pytest.mark.parametrize(
    "rubbish", ["", "I cannot help.", "[1, 2]", '{"query": "x", "claims": []}', '{"claims": [1]}']
)
def test_rubbish_is_no_draft_and_is_not_kept(asked, cache, rubbish):
    with Endpoint((200, rubbish, 0)) as server:
        assert generator(server, cache).generate(asked[:1]) == [None]
        assert generator(server, cache).estimate(asked[:1]).num_cached == 0


def test_claims_of_an_odd_shape_are_left_to_reflection():
    draft = read_draft(
        'Sure!\n```json\n{"query": " a  b ", "claims": [7, {"kind": "count", "value": "2"}]}\n```'
    )
    assert draft.query == "a b"
    assert draft.claims == (Claim(kind="", about="", value=0), Claim(kind="count", about="", value=-1))


def test_cost_is_estimated_before_anything_is_sent(asked, cache):
    with Endpoint((200, GOOD, 0)) as server:
        prices = {
            "max_answer_tokens": 100,
            "dollars_per_million_prompt_tokens": 2.0,
            "dollars_per_million_answer_tokens": 10.0,
        }
        estimate = generator(server, cache, **prices).estimate(asked)
        assert server.seen == []
    chars = sum(len(message["content"]) for one in asked for message in prompt_messages(one))
    assert estimate.num_requests == 4
    assert estimate.answer_tokens == 400
    assert estimate.prompt_tokens == round(chars / 4)
    assert estimate.dollars == pytest.approx((estimate.prompt_tokens * 2 + 400 * 10) / 1e6)


def test_requests_are_paced(asked, cache):
    with Endpoint((200, GOOD, 0)) as server:
        generator(server, cache, requests_per_minute=600, concurrency=4).generate(asked)
        gaps = sorted(server.at)
    assert gaps[-1] - gaps[0] >= 0.25  # four requests, a tenth of a second apart


def test_bad_settings_and_a_broken_cache_are_named(tmp_path):
    with pytest.raises(DeclarationError, match="base_url is 'localhost'"):
        EndpointSettings(base_url="localhost", model="tiny")
    assert "secret" not in repr(EndpointSettings(base_url="http://x", model="m", api_key="secret"))
    (tmp_path / "broken").write_bytes(b"not a database, but long enough to look like one" * 9)
    with pytest.raises(LakeError, match="broken"):
        PromptCache(tmp_path / "broken")
