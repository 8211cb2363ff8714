"""The hierarchical coarse-to-fine encoder: event, modality and user levels, and optional groups.

Query-as-Anchor eq. 1-2. Event texts are encoded elsewhere; here vectors become soft tokens.
Shape letters: N rows, T events, M modalities, E encoder width, W backbone width, F count features.
"""

import torch
from torch import Tensor, nn

from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.engine.features import NUM_SUMMARY_FEATURES

DEFAULT = "default"
TOKEN_TYPES = ("usr", "mdl", "grp", "evt")


class Adapter(nn.Module):
    """LayerNorm, Linear, GELU, Linear: encoder width to backbone width."""

    def __init__(self, encoder_dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder_dim)
        self.inner = nn.Linear(encoder_dim, hidden)
        self.outer = nn.Linear(hidden, hidden)

    def forward(self, vectors_NE: Tensor) -> Tensor:
        """(N, E) to (N, W)."""
        return self.outer(nn.functional.gelu(self.inner(self.norm(vectors_NE))))


class CountMLP(nn.Module):
    """A linear layer plus a small MLP over count features: the linear part survives without training."""

    def __init__(self, num_features: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, hidden, bias=False)
        self.inner = nn.Linear(num_features, 64)
        self.outer = nn.Linear(64, hidden)

    def forward(self, features_NF: Tensor) -> Tensor:
        """(N, F) to (N, W)."""
        return self.linear(features_NF) + self.outer(nn.functional.gelu(self.inner(features_NF)))


def masked_mean(vectors_NTE: Tensor, present_NT: Tensor) -> Tensor:
    """(N, E): the mean over those T that are present; zeros where none is.

    Absent rows neither enter the sum nor the count, whatever they hold.
    """
    weights = present_NT.to(vectors_NTE.dtype).unsqueeze(-1)
    total = torch.where(weights > 0, vectors_NTE, torch.zeros_like(vectors_NTE)).sum(1)
    return total / weights.sum(1).clamp(min=1.0)


class HierarchicalEncoder(nn.Module):
    """Event, modality, user (and group) adapters, one method a level.

    Modalities named in the config have adapters of their own; all others share ``default``.
    """

    def __init__(self, config: EngineConfig) -> None:
        super().__init__()
        width, encoder_dim = config.hidden, config.encoder_dim
        self.known = frozenset(config.modalities)
        self.with_counts = config.summaries
        names = [_slot(name) for name in (DEFAULT, *config.modalities)]
        self.event = nn.ModuleDict({name: Adapter(encoder_dim, width) for name in names})
        self.edges = nn.ParameterDict({name: nn.Parameter(torch.empty(2, width)) for name in names})
        self.modality = Adapter(encoder_dim, width)
        self.user = Adapter(encoder_dim, width)
        if config.group_tokens:
            self.group_name = nn.Linear(encoder_dim, width)
            self.group_count = CountMLP(NUM_SUMMARY_FEATURES, width)
        if config.summaries:
            self.total = nn.ModuleDict({name: CountMLP(NUM_SUMMARY_FEATURES, width) for name in names})
            self.types = nn.Parameter(torch.empty(len(TOKEN_TYPES), width))

    def adapter_of(self, modality: str) -> str:
        """The key of the modality's own modules, or of the shared ones."""
        return _slot(modality if modality in self.known else DEFAULT)

    def events(self, modality: str, vectors_NE: Tensor) -> Tensor:
        """z^evt = MLP_m(LayerNorm(h)): (N, E) to (N, W)."""
        return self.event[self.adapter_of(modality)](vectors_NE) + self._type("evt")

    def modalities(self, mean_NE: Tensor) -> Tensor:
        """z^mdl = MLP_mdl(LayerNorm(mean h)), one adapter for all: (N, E) to (N, W)."""
        return self.modality(mean_NE) + self._type("mdl")

    def users(self, mean_NE: Tensor) -> Tensor:
        """z^usr of the mean over present modalities: (N, E) to (N, W)."""
        return self.user(mean_NE) + self._type("usr")

    def totals(self, modality: str, features_NF: Tensor) -> Tensor:
        """A modality's counts: (N, F) to (N, W); zeros where the features' constant is 0 (absent)."""
        present = features_NF[:, -1:]
        return self.total[self.adapter_of(modality)](features_NF) * present

    def groups(self, name_NE: Tensor, features_NF: Tensor) -> Tensor:
        """z^grp: the name's vector through a linear layer, plus its counts: (N, W)."""
        return self.group_name(name_NE) + self.group_count(features_NF) + self._type("grp")

    def edge(self, modality: str, end: bool) -> Tensor:
        """(W,): the modality's start or end token."""
        return self.edges[self.adapter_of(modality)][int(end)]

    def _type(self, kind: str) -> Tensor | float:
        return self.types[TOKEN_TYPES.index(kind)] if self.with_counts else 0.0


def _slot(name: str) -> str:
    return f"of_{name}"  # a bare name could clash with an attribute of ModuleDict, such as "items"
