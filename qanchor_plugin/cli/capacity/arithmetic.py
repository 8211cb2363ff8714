"""Demand and costs to devices, bytes and cores: a function of its arguments."""

from math import ceil
from typing import Any

from qanchor_plugin.cli.capacity.costs import UserCosts
from qanchor_plugin.cli.capacity.demand import Demand

EVENT_BYTES = 26
"""behaviour_sequences, an event: the example store's 108,691 events take 2.8 MB."""
EMBEDDING_BYTES = 572
"""scenario_embeddings, a row: the example store's 16,842 rows take 9.6 MB."""
ONLINE_ROW_BYTES = 128 * 4 + 200


def planned(demand: Demand, costs: UserCosts, *, kv_scheme: str | None) -> dict[str, Any]:
    """Everything ``qanchor plan`` tells, as JSON-like values.

    Args:
        demand: what is asked.
        costs: of one user on the device.
        kv_scheme: that ``user_prefixes`` carries; None stores soft tokens alone.
    """
    dirty = demand.dirty_users
    refresh = dirty * costs.seconds(demand.scenarios)
    one_more = dirty * costs.query_seconds
    online = demand.online_qps * costs.seconds(demand.queries_per_request) / (1 - demand.headroom)
    devices = refresh / demand.window_seconds
    return {
        "device": costs.device,
        "basis": costs.basis,
        "dirty_users_per_day": round(dirty),
        "devices": {
            "refresh": devices,
            "online": online,
            "to_have": max(1, ceil(max(devices, online))),
            "refresh_hours_on_one": refresh / 3600,
        },
        "per_user": {
            "prefill_seconds": costs.prefill_seconds,
            "query_seconds": costs.query_seconds,
            "refresh_seconds": costs.seconds(demand.scenarios),
        },
        "scenario": {
            "devices_each": devices / demand.scenarios,
            "devices_one_more": one_more / demand.window_seconds,
            "share_of_refresh_one_more": one_more / refresh,
            "storage_one_more_bytes": _scenario_bytes(demand),
        },
        "storage_bytes": storage(demand, costs, kv_scheme=kv_scheme),
        "spark_cores": max(1, ceil(dirty * demand.spark_core_seconds / demand.window_seconds)),
        "assumptions": [*costs.assumptions, *_assumptions(demand, kv_scheme)],
    }


def storage(demand: Demand, costs: UserCosts, *, kv_scheme: str | None) -> dict[str, float]:
    """Bytes by table."""
    events = float(demand.events_per_day * demand.history_days)
    soft = costs.token_bytes * demand.tokens
    kv = 0.0 if kv_scheme is None else costs.kv_bytes[kv_scheme]
    kept = demand.users + demand.dirty_users * (demand.copies - 1)
    return {
        "behaviour_sequences": events * EVENT_BYTES,
        "user_prefixes": kept * soft,
        "user_prefixes, keys and values": kept * kv,
        "scenario_embeddings": _scenario_bytes(demand) * demand.scenarios,
        "online store": demand.users * demand.scenarios * ONLINE_ROW_BYTES,
    }


def _scenario_bytes(demand: Demand) -> float:
    return (demand.users + demand.dirty_users * (demand.copies - 1)) * EMBEDDING_BYTES


def _assumptions(demand: Demand, kv_scheme: str | None) -> list[str]:
    spread = "from events spread evenly over users, each in once and out of the window once"
    dirty = spread if demand.dirty_share is None else "given"
    stored = "soft tokens alone" if kv_scheme is None else f"soft tokens, and keys and values as {kv_scheme}"
    return [
        f"{demand.dirty_users:,.0f} users are dirty a day ({dirty}); each is prefilled once for all.",
        f"Every user has {demand.tokens} prefix tokens; every query has {demand.query_tokens} tokens.",
        f"{demand.headroom:.0%} of a device's time is free; a refresh has {demand.window_hours:g} hours.",
        "Online requests are misses: each pays soft tokens, a prefill and its queries; hits cost no device.",
        f"Stored are {stored}; {demand.copies} versions of a dirty user's rows stand before vacuum, and "
        f"{demand.history_days} days of events of {EVENT_BYTES} B; an embedding takes {EMBEDDING_BYTES} B.",
        f"Spark spends {demand.spark_core_seconds:g} core seconds on a dirty user outside the engine (the "
        "default is the user-cost benchmark's at 80 users, where fixed costs weigh: an upper bound).",
    ]
