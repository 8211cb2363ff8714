"""An engine's trainable parts, as one torch module with tensor-level forwards.

A training loop calls these with gradients; the façade calls them under ``inference_mode``.
Shape letters: B users, L prefix tokens, S suffix tokens, Q queries, W hidden width, E encoder width,
M meaning width, C = W + M.
"""

from typing import Any

import torch
from torch import Tensor, nn

from qanchor_plugin.engine.backbone import KV, CausalLMBackbone
from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.engine.decoder import Decoder, stamp, supported
from qanchor_plugin.engine.hierarchy import HierarchicalEncoder
from qanchor_plugin.engine.meaning import MeaningBackbone
from qanchor_plugin.engine.projection import Projection
from qanchor_plugin.engine.suffix import (
    Packed,
    SuffixEncoder,
    block_mask,
    causal_mask,
    suffix_positions,
)
from qanchor_plugin.errors import EngineError


class MeaningSpace(nn.Module):
    """Fixed projections of encoder vectors in which meaning heads compare: centred, normalised, reduced.

    Of ``texts``, both sides share one orthogonal basis. Of ``behaviour``, texts and queries have a map each
    into the directions in which users differ, and are normalised there.
    """

    text_mean: Tensor
    query_mean: Tensor
    basis: Tensor
    query_basis: Tensor | None

    def __init__(self, encoder_dim: int, meaning_dim: int, *, of_behaviour: bool = False) -> None:
        super().__init__()
        self.register_buffer("text_mean", torch.zeros(encoder_dim))
        self.register_buffer("query_mean", torch.zeros(encoder_dim))
        self.register_buffer("basis", torch.zeros(encoder_dim, meaning_dim))
        self.register_buffer("query_basis", torch.zeros(encoder_dim, meaning_dim) if of_behaviour else None)

    @property
    def shape(self) -> tuple[int, ...]:
        """(E, M)."""
        return tuple(self.basis.shape)

    def texts(self, vectors_NE: Tensor) -> Tensor:
        """Event texts and group names as keys: (N, E) to (N, M)."""
        return self._compared(vectors_NE - self.text_mean, self.basis)

    def queries(self, vectors_NE: Tensor) -> Tensor:
        """Queries, in the same space: (N, E) to (N, M)."""
        basis = self.basis if self.query_basis is None else self.query_basis
        return self._compared(vectors_NE - self.query_mean, basis)

    def _compared(self, centred_NE: Tensor, basis_EM: Tensor) -> Tensor:
        placed = nn.functional.normalize(centred_NE, dim=-1) @ basis_EM
        return placed if self.query_basis is None else nn.functional.normalize(placed, dim=-1)


def empty_space(config: EngineConfig) -> MeaningSpace:
    """The meaning space of a config, all zeros: what is loaded or fitted comes next."""
    return MeaningSpace(config.encoder_dim, config.meaning_dim, of_behaviour=config.space == "behaviour")


class EngineModules(nn.Module):
    """Hierarchy, backbone, suffix and projection of one engine."""

    def __init__(self, config: EngineConfig, model: Any = None) -> None:
        super().__init__()
        self.config = config
        self.hierarchy = HierarchicalEncoder(config)
        by_meaning = config.backbone == "meaning"
        self.backbone: MeaningBackbone | CausalLMBackbone = (
            MeaningBackbone(config) if by_meaning else CausalLMBackbone(model)
        )
        self.space = empty_space(config) if by_meaning else None
        self.start = nn.Parameter(torch.zeros(config.hidden)) if by_meaning else None
        self.suffix = SuffixEncoder(
            config.hidden,
            encoder_dim=config.encoder_dim if by_meaning else None,
            with_age=config.summaries,
        )
        self.projection = Projection(config.hidden, config.projection_dim, config.embedding_dim)
        self._fast: tuple[Any, Decoder] | None = None
        self._serves_only = False

    @property
    def is_flat(self) -> bool:
        """Whether forwards run now without padding (:class:`..decoder.Decoder`): under inference mode, for a
        language model that it knows."""
        backbone = self.backbone
        return (
            torch.is_inference_mode_enabled()
            and isinstance(backbone, CausalLMBackbone)
            and supported(backbone.model)
        )

    def _decoder(self) -> Decoder | None:
        if not self.is_flat or not isinstance(self.backbone, CausalLMBackbone):
            return None
        if self._fast is None or self._fast[0] != stamp(self.backbone.model):
            self._fast = self._made_decoder(alone=False)
        return self._fast[1]

    def _made_decoder(self, *, alone: bool) -> tuple[Any, Decoder]:
        """The decoder, and the state of the weights that it was made of."""
        model = self.backbone.model
        decoder = Decoder(model, int8=self.config.dtype == "int8", alone=alone)
        return stamp(model), decoder

    @property
    def _whole_backbone(self) -> MeaningBackbone | CausalLMBackbone:
        self.check_whole()
        return self.backbone

    def serve_only(self) -> None:
        """The linear weights of a model that :attr:`is_flat` are held once, as its forward multiplies them
        (packed, or in another type). Training, saving, digests and the slow path need them and raise
        EngineError from now on."""
        if not self._serves_only:
            self._fast = self._made_decoder(alone=True)
            self._serves_only = True

    def check_whole(self) -> None:
        """Nothing, unless :meth:`serve_only` let weights go: then EngineError."""
        if self._serves_only:
            raise EngineError(
                "this engine was loaded to serve: its linear weights are packed and cannot be trained, saved "
                "or run another way. Load it anew with QueryAnchorEngine.load."
            )

    @property
    def compute_dtype(self) -> torch.dtype:
        """Type of the backbone's weights."""
        return next(self.backbone.parameters()).dtype

    def prefill(self, rows_BLC: Tensor, positions_BL: Tensor, valid_BL: Tensor) -> KV:
        """The prefixes' keys and values.

        Args:
            rows_BLC: soft tokens, right-padded.
            positions_BL: int64.
            valid_BL: bool, False where padded.
        """
        rows = rows_BLC.to(self.compute_dtype)
        fast = self._decoder()
        if fast is not None:
            return fast.prefill(rows, positions_BL, valid_BL)
        is_suffix = torch.zeros(rows_BLC.shape[1], dtype=torch.bool, device=rows_BLC.device)
        none = torch.zeros(0, dtype=torch.int64, device=rows.device)
        _, kv = self._whole_backbone.encode(rows, positions_BL, causal_mask(valid_BL), is_suffix, None, none)
        return kv

    def answer(self, kv: KV, valid_BL: Tensor, packed: Packed, start_B: Tensor, age_BF: Tensor) -> Tensor:
        """(B, Q, 128) float32, L2-normalised: every packed query over every user's cached prefix.

        Args:
            kv: from :meth:`prefill`; it is read, not changed.
            valid_BL: bool, False where the prefix is padded.
            packed: the queries.
            start_B: see :func:`..suffix.suffix_positions`.
            age_BF: see :func:`..features.age_features`.
        """
        rows = self.suffix.rows(packed, age_BF).to(self.compute_dtype)
        positions = suffix_positions(packed, start_B, time=self.config.time)
        fast = self._decoder()
        if fast is not None:
            return self.projection(fast.answer(rows, positions, packed, kv, valid_BL).float())
        is_suffix = torch.ones(rows.shape[1], dtype=torch.bool, device=rows.device)
        allowed = block_mask(packed.sees_SS, valid_BL)
        hidden, _ = self._whole_backbone.encode(rows, positions, allowed, is_suffix, kv, packed.last_Q)
        return self.projection(hidden.float())

    def full(self, rows_BNC: Tensor, positions_BN: Tensor, num_suffix: int) -> Tensor:
        """(B, 128) float32: prefix and one suffix encoded together, no cache, no padding (the slow path)."""
        length = rows_BNC.shape[1]
        is_suffix = torch.arange(length, device=rows_BNC.device) >= length - num_suffix
        allowed = torch.ones(length, length, dtype=torch.bool, device=rows_BNC.device).tril()
        rows = rows_BNC.to(self.compute_dtype)
        last = torch.tensor([length - 1], device=rows.device)
        hidden, _ = self._whole_backbone.encode(
            rows, positions_BN, allowed.expand(len(rows), -1, -1), is_suffix, None, last
        )
        return self.projection(hidden[:, 0].float())

    def own_state(self) -> dict[str, Tensor]:
        """The state dict without a transformers backbone, which saves itself."""
        self.check_whole()
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.model.")}

    def prefix_state(self) -> dict[str, Tensor]:
        """The tensors that shape stored prefix tokens."""
        state = {f"hierarchy.{k}": v for k, v in self.hierarchy.state_dict().items()}
        if self.space is not None and self.start is not None:
            state |= {"start": self.start, "text_mean": self.space.text_mean, "basis": self.space.basis}
            if self.space.query_basis is not None:  # texts are normalised after it, too
                state["query_basis"] = self.space.query_basis
        if isinstance(self.backbone, CausalLMBackbone):
            state["embeddings"] = self.backbone.model.get_input_embeddings().weight
        return state
