"""The planner by hand, and the two commands over a small engine."""

from math import exp
from pathlib import Path

import pytest

from qanchor_plugin.cli.capacity.arithmetic import planned
from qanchor_plugin.cli.capacity.costs import UserCosts, datasheet_costs, measured_costs
from qanchor_plugin.cli.capacity.demand import Demand
from qanchor_plugin.cli.capacity.devices import DATASHEETS, QWEN_05B
from qanchor_plugin.errors import DeclarationError
from tests.qanchor_command import Qanchor
from tests.unit.prefix_store.test_tiered import constants

COSTS = UserCosts(
    device="test",
    basis="measured",
    prefill_seconds=0.1,
    query_seconds=0.01,
    first_seconds=0.02,
    build_seconds=0.03,
    token_bytes=10,
    kv_bytes={"bf16": 1000.0, "int8": 500.0},
    assumptions=(),
)


def demand(**changed) -> Demand:
    values = {
        "users": 1000,
        "events_per_day": 0,
        "scenarios": 5,
        "window_hours": 1.0,
        "dirty_share": 0.5,
        "tokens": 4,
        "headroom": 0.5,
        "copies": 3,
        "history_days": 2,
        "spark_core_seconds": 7.2,
    }
    return Demand(**{**values, **changed})


def test_devices_storage_and_margins_by_hand():
    told = planned(demand(), COSTS, kv_scheme="int8")
    # 500 dirty users x (0.03 + 0.1 + 0.02 + 5 x 0.01) s = 100 s in a window of 1,800 s
    assert told["devices"]["refresh"] == pytest.approx(100 / 1800)
    assert told["devices"]["to_have"] == 1
    # one more scenario: 500 x 0.01 = 5 s, a twentieth of the refresh
    assert told["scenario"]["share_of_refresh_one_more"] == pytest.approx(0.05)
    assert told["scenario"]["devices_one_more"] == pytest.approx(5 / 1800)
    # rows kept: 1000 + 500 x 2 = 2000
    assert told["storage_bytes"]["user_prefixes"] == 2000 * 4 * 10
    assert told["storage_bytes"]["user_prefixes, keys and values"] == 2000 * 500
    assert told["storage_bytes"]["scenario_embeddings"] == 2000 * 572 * 5
    assert told["spark_cores"] == 2, "500 users x 7.2 s in 1,800 s"
    online = planned(demand(online_qps=10.0, queries_per_request=2), COSTS, kv_scheme=None)
    assert online["devices"]["online"] == pytest.approx(10 * 0.17 / 0.5)
    assert online["devices"]["to_have"] == 4


def test_dirty_users_follow_the_events():
    some = demand(dirty_share=None, events_per_day=500)
    assert some.dirty_users == pytest.approx(1000 * (1 - exp(-1)))
    with pytest.raises(DeclarationError, match="users is 0; it must be above 0"):
        demand(users=0)


def test_measured_costs_scale_queries_by_their_tokens():
    # 100 tokens prefill in 0.1 s; queries of 20 tokens take 5 ms each after 5 ms: 10 tokens take half
    costs = measured_costs(constants(), demand(tokens=100, query_tokens=10))
    assert costs.prefill_seconds == pytest.approx(0.1)
    assert costs.query_seconds == pytest.approx(0.0025)
    assert costs.first_seconds == pytest.approx(0.005)


def test_a_datasheet_gives_the_references_operations():
    assert QWEN_05B.prefill_flops(700) == pytest.approx(522.3e9, rel=0.01)
    assert QWEN_05B.query_flops(21, 700) == pytest.approx(16.3e9, rel=0.01)
    costs = datasheet_costs(DATASHEETS["H200"], QWEN_05B, demand(tokens=700))
    # break-even bandwidth of bf16 keys on an H200: 8.6 MB over the prefill's seconds, 6.5 GB/s
    assert costs.kv_bytes["bf16"] / costs.prefill_seconds == pytest.approx(6.5e9, rel=0.02)
    assert "not measured" in costs.assumptions[0]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "feature_store.yaml").write_text("qanchor:\n  lake: lake\n  device: cpu\n")
    return tmp_path


def test_plan_says_what_is_measured_and_what_is_not(qanchor: Qanchor, repo: Path):
    asked = ("plan", "--users", "1e6", "--events-per-day", "2e6", "--scenarios", "20", "--repo", str(repo))
    refused = qanchor(*asked)
    assert refused.code == 1
    assert "Run qanchor calibrate" in refused.err
    sheet = qanchor(*asked, "--device", "l20")
    assert sheet.code == 0
    assert "datasheet arithmetic, not measured" in sheet.out
    constants().write(repo / "constants.json")
    told = qanchor(*asked, "--calibration", str(repo / "constants.json"), "--json").json
    assert told["basis"] == "measured"
    assert any("Seconds were measured on here (cpu" in one for one in told["assumptions"])
    assert told["devices"]["to_have"] >= told["devices"]["refresh"] > 0
    assert "accepted are here and H200, A100, L20" in qanchor(*asked, "--device", "TPU").err
    assert "accepted are none, bf16 and int8" in qanchor(*asked, "--device", "L20", "--kv", "fp8").err


def test_calibrate_writes_what_the_policy_and_the_planner_read(qanchor: Qanchor, repo: Path):
    from qanchor_plugin.declare import Settings
    from qanchor_plugin.prefix_store import Calibration, calibration_path, kv_policy
    from tests.shop import demo_engine

    asked = ("calibrate", "--repo", str(repo), "--tokens", "16", "--tokens", "64", "--repeats", "1", "--json")
    said = qanchor(*asked)
    assert said.code == 0, said.err
    settings = Settings(lake=str(repo / "lake"), device="cpu")
    path = calibration_path(settings.lake)
    assert said.json["file"] == str(path)
    costs = Calibration.read(path)
    assert costs.kv_digest == demo_engine().kv_digest
    assert [n for n, _ in costs.prefill] == [16.0, 64.0]
    assert set(costs.tiers) == {"memory", "disk", "delta"}
    # demo, bf16: 2 layers x (2 key + 4 value heads) x 64 wide x 2 bytes a token
    assert costs.stored_bytes("bf16", 64) == pytest.approx(64 * 2 * 6 * 64 * 2)
    assert {row["tier"] for row in said.json["break_even"]} == {"memory", "disk", "delta"}
    assert kv_policy(settings, demo_engine()).reason == ""
    assert not list((repo / "lake").glob(".calibrate-*"))
    plan = ("plan", "--users", "1e4", "--events-per-day", "1e4", "--scenarios", "7", "--repo", str(repo))
    assert "CPU hosts" in qanchor(*plan, "--tokens", "64").out
    refused = qanchor(*asked[:3], "--tokens", "64")
    assert (refused.code, "give two different ones or more" in refused.err) == (1, True)
