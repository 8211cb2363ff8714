"""What untrained weights keep."""

import torch

from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO


def test_a_meaning_heads_values_keep_the_directions_of_counts_whole() -> None:
    modules = QueryAnchorEngine.untrained(DEMO, device="cpu").modules
    counts_WF = modules.hierarchy.group_count.linear.weight.detach()
    first, last = (block.attention for block in modules.backbone.layers)

    def kept(attention: torch.nn.Module, head: int) -> torch.Tensor:
        rows = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
        return (attention.value.weight[rows].detach() @ counts_WF).norm(dim=0) / counts_WF.norm(dim=0)

    for head in range(last.num_meaning):
        assert torch.allclose(kept(last, head), torch.ones(counts_WF.shape[1]), atol=1e-5)
    assert kept(last, last.num_meaning).max() < 0.9  # an ordinary head's values are a random rotation's
    assert kept(first, 0).max() < 0.9
