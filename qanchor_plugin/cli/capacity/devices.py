"""Devices that are not here, from their datasheets: arithmetic, labelled as such wherever it is shown."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device's peaks.

    Attributes:
        name: as it is asked for.
        peak_flops: dense bfloat16 operations a second (multiply and add count two).
        memory_bytes: its memory.
        utilisation: share of the peak that prefills are taken to reach.
        suffix_utilisation: likewise for packed queries, whose matrices are smaller.
    """

    name: str
    peak_flops: float
    memory_bytes: float
    utilisation: float = 0.4
    suffix_utilisation: float = 0.2


DATASHEETS = {
    one.name: one
    for one in (
        Device(name="H200", peak_flops=989e12, memory_bytes=141e9),
        Device(name="A100", peak_flops=312e12, memory_bytes=80e9),
        Device(name="L20", peak_flops=119.5e12, memory_bytes=48e9),
    )
}
"""Dense bfloat16 peaks: NVIDIA's datasheets of the H200 SXM, the A100 SXM 80 GB and the L20."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a forward of a causal LM costs, and what its cache takes.

    Attributes:
        name: for people.
        flops_token: operations a token, weights alone.
        flops_pair: operations times length squared; the causal half is counted.
        kv_bytes_token: of the cache, bfloat16.
        token_bytes: of a soft token with its position.
    """

    name: str
    flops_token: float
    flops_pair: float
    kv_bytes_token: int
    token_bytes: int

    def prefill_flops(self, num_tokens: float) -> float:
        """Operations of one user's prefill."""
        return self.flops_token * num_tokens + self.flops_pair * num_tokens**2

    def query_flops(self, num_tokens: float, prefix_tokens: float) -> float:
        """Operations of one query over a cached prefix."""
        seen = prefix_tokens + num_tokens / 2
        return self.flops_token * num_tokens + 2 * self.flops_pair * num_tokens * seen


QWEN_05B = ModelShape(
    name="Qwen2.5-0.5B",
    flops_token=0.716e9,
    flops_pair=43_008.0,
    kv_bytes_token=12_288,
    token_bytes=896 * 2 + 4,
)
"""24 layers, 896 wide, 14 heads, 2 KV heads of 64; embeddings and head not counted."""
