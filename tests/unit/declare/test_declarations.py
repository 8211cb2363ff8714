"""Declarations: round trips, digests, and every fault in one message."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qanchor_plugin.declare import (
    Declarations,
    EntityRef,
    Modality,
    Profile,
    Scenario,
    Settings,
    SourceSpec,
)
from qanchor_plugin.errors import DeclarationError


def scenario(**changes: object) -> Scenario:
    given = {"name": "redeemer", "query": "Will they redeem?", "profile": "journey", **changes}
    return Scenario(**given)  # type: ignore[arg-type]


def test_json_round_trip_keeps_every_field_and_the_digest(profile: Profile) -> None:
    declared = Declarations.of(
        "shop", [profile], [scenario(ttl=timedelta(days=7), tags={"team": "crm"}, mode="as_served")]
    )
    back = Declarations.from_json(declared.to_json())
    assert back == declared
    assert back.digest == declared.digest
    assert back.scenarios["redeemer"].ttl == timedelta(days=7)


def test_unknown_keys_are_refused_by_name() -> None:
    with pytest.raises(DeclarationError, match=r"unknown keys \['colour'\]"):
        Scenario.from_dict({**scenario().to_dict(), "colour": "red"})


def test_a_profile_name_with_two_bodies_is_one_fault_however_often_it_stands(
    profile: Profile, purchases: Modality, household: EntityRef
) -> None:
    other = Profile("journey", household, [purchases], window=timedelta(days=1))
    with pytest.raises(DeclarationError) as caught:
        Declarations.of("shop", [profile, other, other], [scenario(), scenario(name="b", profile="no")])
    assert len(caught.value.faults) == 2
    assert "'journey' is declared with two different bodies" in str(caught.value)
    assert "'no', which is not declared" in str(caught.value)


@pytest.mark.parametrize("name", ["", "9lives", "a-b", "a:b", "a@v1", "x" * 65, "a__b", "grün", "a b"])
def test_names_that_cannot_be_slugs_are_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="is not usable"):
        scenario(name=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": "  "}, "the query is empty"),
        ({"query": "x" * 2001}, "2001 characters, at most 2000"),
        ({"ttl": timedelta(seconds=-1)}, "ttl is"),
        ({"mode": "soonish"}, "accepted are 'exact' and 'as_served'"),
    ],
)
def test_scenario_faults(changes: dict, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        scenario(**changes)


def test_all_faults_of_a_modality_stand_in_one_message() -> None:
    source = SourceSpec(name="s", path="raw/s", event_at="")
    with pytest.raises(DeclarationError) as caught:
        Modality("bad name", source, text="no columns", amounts=("a", "b", "c"), max_events=0)
    text = str(caught.value)
    for part in ("'bad name'", "names no column", "3 amounts", "max_events is 0", "no timestamp_field"):
        assert part in text


def test_only_a_tabular_modality_may_be_static(purchases: Modality) -> None:
    with pytest.raises(DeclarationError, match="static=True is only for kind='tabular'"):
        Modality("m", purchases.source, text="{a}", static=True)
    with pytest.raises(DeclarationError, match="no group_by and no amounts"):
        Modality("m", purchases.source, text="{a}", kind="tabular", group_by=("a",))


def test_a_source_names_exactly_one_place() -> None:
    with pytest.raises(DeclarationError, match="exactly one of path, table or query"):
        SourceSpec(name="s", path="a", table="b", event_at="t")


def test_text_columns_are_found_once_each(purchases: Modality) -> None:
    twice = Modality("m", purchases.source, text="{a} {b:>3} {a}", group_by=("b", "c"))
    assert twice.text_columns == ("a", "b")
    assert twice.columns == ("a", "b", "c")


def test_the_sequence_digest_ignores_what_only_slicing_uses(purchases: Modality) -> None:
    more = Modality.from_dict({**purchases.to_dict(), "max_events": 99})
    other = Modality.from_dict({**purchases.to_dict(), "text": "{product}"})
    assert more.sequence_digest == purchases.sequence_digest
    assert other.sequence_digest != purchases.sequence_digest


def test_a_changed_query_changes_the_scenario_identity(profile: Profile) -> None:
    one = scenario(engine_digest="e")
    two = scenario(engine_digest="e", query="Will they leave?")
    declared = Declarations.of("shop", [profile], [one])
    assert declared.scenario_id(one) != declared.scenario_id(two)
    with pytest.raises(DeclarationError, match="no resolved engine"):
        declared.scenario_id(scenario())


def test_a_profile_needs_room_for_its_summary_tokens(purchases: Modality, household: EntityRef) -> None:
    with pytest.raises(DeclarationError, match="alone need 4"):
        Profile("p", household, [purchases], max_tokens=3)
    with pytest.raises(DeclarationError, match="names a modality twice"):
        Profile("p", household, [purchases, purchases])


def test_settings_make_paths_absolute_and_the_clock_utc(tmp_path: Path) -> None:
    settings = Settings.from_mapping(
        {"lake": "data/lake", "clock": "2018-01-01T02:00:00+02:00"}, repo_path=tmp_path
    )
    assert settings.lake == str(tmp_path / "data/lake")
    assert settings.now() == datetime(2018, 1, 1, tzinfo=UTC)


def test_a_bare_null_of_yaml_is_the_answer_null(tmp_path: Path) -> None:
    given = {"lake": "lake", "on_miss": None}
    assert Settings.from_mapping(given, repo_path=tmp_path).on_miss == "null"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "has no 'qanchor: lake:'"),
        ({"lake": "x", "clok": 1}, r"unknown keys \['clok'\]"),
        ({"lake": "x", "clock": "noon"}, "write it as 2018-01-01T00:00:00Z"),
        ({"lake": "x", "on_miss": "guess", "max_bad_row_share": 2}, "2 faults"),
    ],
)
def test_settings_faults(given: dict | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=message):
        Settings.from_mapping(given, repo_path=tmp_path)
