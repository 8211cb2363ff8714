"""Next-token prediction of answers: what a backbone without a vocabulary lacks, for training alone.

A ``hf`` backbone reads and predicts with its own embeddings and head. The ``meaning`` backbone has none: an
answer's word pieces enter as the sentence encoder's static embeddings, and are predicted among the pieces of
the batch's answers. Shape letters: B pairs, T answer tokens, V pieces of the batch, E encoder width, W hidden
width, M meaning width, C = W + M.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qanchor_plugin.engine.backbone import CausalLMBackbone
from qanchor_plugin.engine.engine import QueryAnchorEngine
from qanchor_plugin.errors import EngineError
from qanchor_plugin.losses import next_token_loss
from qanchor_plugin.losses.next_token import IGNORED


class AnswerWords(nn.Module):
    """Answers in and out of a backbone."""

    def __init__(self, engine: QueryAnchorEngine) -> None:
        super().__init__()
        self.modules_of = [engine.modules]  # in a list: its weights are the engine's, not this module's
        self.static: Tensor | None = None
        if engine.tokenizer is None:
            config = engine.config
            transformer = engine.encoder.model[0].auto_model
            self.static = transformer.get_input_embeddings().weight.detach()
            self.inward = nn.Linear(config.encoder_dim, config.hidden)
            self.outward = nn.Linear(config.hidden, config.encoder_dim)

    def rows(self, ids: Sequence[int]) -> Tensor:
        """(T, C): an answer's tokens as input rows."""
        modules = self.modules_of[0]
        at = torch.tensor(ids, dtype=torch.int64, device=modules.suffix.user_emb.device)
        if self.static is None:
            return self._language_model().embed_ids(at).float()
        return nn.functional.pad(self.inward(self.static[at]), (0, modules.config.meaning_dim))

    def loss(self, states_BTW: Tensor, follows_BT: Tensor, answers: Sequence[Sequence[int]]) -> Tensor:
        """Mean cross-entropy of every answer token given all before it.

        Args:
            states_BTW: states at ``<USER_EMB>`` and at each token of the answer.
            follows_BT: whether an answer token follows.
            answers: its ids.
        """
        labels = torch.full(follows_BT.shape, IGNORED, device=states_BTW.device)
        for row, ids in enumerate(answers):
            labels[row, : len(ids)] = torch.tensor(ids, device=labels.device)
        logits, labels = self._logits(states_BTW, labels)
        # next_token_loss shifts by one; a column before the first lines the two up
        none = torch.full_like(labels[:, :1], IGNORED)
        return next_token_loss(torch.cat([logits, logits[:, :1]], dim=1), torch.cat([none, labels], dim=1))

    def _language_model(self) -> CausalLMBackbone:
        backbone = self.modules_of[0].backbone
        if not isinstance(backbone, CausalLMBackbone):
            raise EngineError("this engine's backbone has no vocabulary of its own.")
        return backbone

    def _logits(self, states_BTW: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
        if self.static is None:
            head = self._language_model().model.get_output_embeddings()
            return head(states_BTW.to(head.weight.dtype)).float(), labels_BT
        asked = labels_BT != IGNORED
        pieces_V, place = labels_BT[asked].unique(return_inverse=True)
        among = torch.full_like(labels_BT, IGNORED)
        among[asked] = place
        scale = self.static.shape[1] ** -0.5
        return self.outward(states_BTW.float()) @ self.static[pieces_V].T * scale * 10.0, among
