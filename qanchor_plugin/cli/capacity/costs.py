"""Seconds and bytes a user on a device: measured constants, or a datasheet's arithmetic."""

from dataclasses import dataclass

from qanchor_plugin.cli.capacity.demand import Demand
from qanchor_plugin.cli.capacity.devices import Device, ModelShape
from qanchor_plugin.prefix_store import Calibration


@dataclass(frozen=True, kw_only=True)
class UserCosts:
    """What one user costs.

    Attributes:
        device: for people.
        basis: ``measured`` or ``datasheet``.
        prefill_seconds: of the prefix.
        query_seconds: of each further query.
        first_seconds: of the queries' forward itself, whatever their number.
        build_seconds: of the soft tokens.
        token_bytes: of a soft token.
        kv_bytes: of a user's keys and values by scheme.
        assumptions: sentences.
    """

    device: str
    basis: str
    prefill_seconds: float
    query_seconds: float
    first_seconds: float
    build_seconds: float
    token_bytes: float
    kv_bytes: dict[str, float]
    assumptions: tuple[str, ...]

    def seconds(self, num_queries: int) -> float:
        """Device seconds of one user's refresh: soft tokens, prefill, so many queries."""
        return (
            self.build_seconds + self.prefill_seconds + self.first_seconds + num_queries * self.query_seconds
        )


def measured_costs(costs: Calibration, demand: Demand) -> UserCosts:
    """From constants of ``qanchor calibrate``; queries scale with their tokens."""
    share = demand.query_tokens / costs.query_tokens
    slope = (costs.suffix_seconds(11) - costs.suffix_seconds(1)) / 10
    return UserCosts(
        device=costs.device,
        basis="measured",
        prefill_seconds=costs.prefill_seconds(demand.tokens),
        query_seconds=slope * share,
        first_seconds=max(0.0, costs.suffix_seconds(1) - slope),
        build_seconds=costs.build_seconds * demand.tokens,
        token_bytes=costs.token_bytes,
        kv_bytes={scheme: costs.stored_bytes(scheme, demand.tokens) for scheme in costs.kv_bytes},
        assumptions=(
            f"Seconds were measured on {costs.machine} ({costs.device}, {costs.dtype}) at "
            f"{costs.measured_at} with engine {costs.engine}.",
            f"Queries of {costs.query_tokens} tokens were measured over {costs.suffix_tokens} prefix tokens.",
        ),
    )


def datasheet_costs(device: Device, shape: ModelShape, demand: Demand) -> UserCosts:
    """From peaks and counts of operations: a lead, nothing was measured."""
    prefill = shape.prefill_flops(demand.tokens) / (device.peak_flops * device.utilisation)
    query = shape.query_flops(demand.query_tokens, demand.tokens)
    kv = shape.kv_bytes_token * demand.tokens
    return UserCosts(
        device=device.name,
        basis="datasheet",
        prefill_seconds=prefill,
        query_seconds=query / (device.peak_flops * device.suffix_utilisation),
        first_seconds=0.0,
        build_seconds=0.0,
        token_bytes=shape.token_bytes,
        kv_bytes={"bf16": float(kv), "int8": kv * 0.53},
        assumptions=(
            f"DATASHEET ARITHMETIC, not measured: {device.name} at {device.peak_flops / 1e12:.0f} TFLOP/s of "
            f"dense bfloat16, {device.utilisation:.0%} of it in prefills, {device.suffix_utilisation:.0%} in "
            f"queries; model {shape.name}. Run qanchor calibrate there and plan with --calibration FILE.",
            "Event vectors are looked up, not encoded: the soft tokens' own seconds are taken as none.",
        ),
    )
