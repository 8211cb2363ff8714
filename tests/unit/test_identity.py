"""Identities: equal inputs, equal digests; any difference, another digest."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from qanchor_plugin import identity


def test_text_id_is_blake2b_of_the_utf8_bytes() -> None:
    expected = hashlib.blake2b("café".encode(), digest_size=16).digest()
    assert identity.text_id("café") == expected


def test_digest_is_stable_across_processes_and_key_order() -> None:
    assert identity.digest("a", {"x": 1, "y": [2]}) == identity.digest("a", {"y": [2], "x": 1})
    assert identity.digest("a") == "d0a56ee2fa590a67d4117a3c8ef59175"


@given(
    st.lists(st.one_of(st.text(), st.binary()), max_size=4),
    st.lists(st.one_of(st.text(), st.binary()), max_size=4),
)
def test_different_parts_have_different_digests(first: list, second: list) -> None:
    assert (identity.digest(*first) == identity.digest(*second)) == (first == second)


def test_embedding_id_says_its_scenario_and_changes_with_every_input() -> None:
    scenario = identity.scenario_identity(
        profile_digest="p", engine_digest="e", query="Will they?", soft_prompt_digest=None
    )
    one = identity.embedding_id(scenario=scenario, prefix="x", suffix_day=17_000)
    assert identity.is_of_scenario(one, scenario)
    assert one.split("-")[0] == scenario[:16]
    others = {
        identity.embedding_id(scenario=scenario, prefix="y", suffix_day=17_000),
        identity.embedding_id(scenario=scenario, prefix="x", suffix_day=17_001),
        identity.embedding_id(scenario=scenario, prefix="x", suffix_day=None),
    }
    assert len(others | {one}) == 4


def test_scenario_identity_changes_with_each_of_its_parts() -> None:
    base = {"profile_digest": "p", "engine_digest": "e", "query": "q", "soft_prompt_digest": None}
    changed = [{**base, key: "other"} for key in base]
    digests = {identity.scenario_identity(**one) for one in [base, *changed]}
    assert len(digests) == 5


def test_no_embedding_is_of_no_scenario() -> None:
    assert not identity.is_of_scenario(None, "a" * 32)
    assert not identity.is_of_scenario("", "a" * 32)
