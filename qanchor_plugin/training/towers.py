"""The anchor tower and the semantic tower over one set of weights (Query-as-Anchor 3.2.2), with gradients.

Shape letters: B readings, P pairs, A answers, Q slots a reading, L prefix tokens, T answer tokens, C token
width, D embedding width, V vocabulary.
"""
# ruff: noqa: N815  (fields carry shape suffixes)

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qanchor_plugin.engine.backbone import KV
from qanchor_plugin.engine.engine import QueryAnchorEngine
from qanchor_plugin.engine.prefix import DAY_OFFSET
from qanchor_plugin.training.prefix_rows import collate, prefix_rows
from qanchor_plugin.training.reading import Reading
from qanchor_plugin.training.slots import Slots, in_slots, slot_mask, slot_positions
from qanchor_plugin.training.text_states import TextStates

Rows = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Read:
    """Readings whose prefixes have been read: keys and values with gradients."""

    kv: KV | None
    valid_BL: Tensor
    start_B: Tensor
    age_BF: Tensor

    def of(self, rows: Sequence[int]) -> "Read":
        """Some of the readings, in the order given."""
        at = torch.tensor(rows, device=self.start_B.device)
        kv = None if self.kv is None else [one[at] for one in self.kv]
        return Read(kv=kv, valid_BL=self.valid_BL[at], start_B=self.start_B[at], age_BF=self.age_BF[at])


class Towers:
    """Both towers of an engine; they own no weights.

    Args:
        engine: whose modules are trained.
    """

    def __init__(self, engine: QueryAnchorEngine) -> None:
        self.engine, self.modules = engine, engine.modules
        self.texts = TextStates(engine)

    def read(self, readings: Sequence[Reading], vectors_VE: Tensor) -> Read:
        """The prefixes of readings of one profile, computed once for all their queries."""
        device = self.engine.device
        batch = collate(readings).to(device)
        template = self.engine.template_rows(batch.modality_names)
        rows = prefix_rows(self.modules, batch, vectors_VE.to(device), template)
        kv = self.modules.prefill(rows, batch.positions_BL, batch.valid_BL)
        return Read(kv=kv, valid_BL=batch.valid_BL, start_B=batch.start_B, age_BF=batch.age_BF)

    def users(self, read: Read, reading_of_pair: Sequence[int], queries: Sequence[str]) -> Tensor:
        """(P, D) float32, L2-normalised: each pair's user anchored by its query."""
        rows = {query: self.texts.query_rows(query) for query in dict.fromkeys(queries)}
        of_reading: list[list[Rows]] = [[] for _ in read.start_B]
        place: list[tuple[int, int]] = []
        for number, query in zip(reading_of_pair, queries, strict=True):
            place.append((number, len(of_reading[number])))
            of_reading[number].append((rows[query], None))
        slots = in_slots(of_reading)
        states_BQW = self._states(read, slots, slots.emb_Q)
        at_P2 = torch.tensor(place, device=states_BQW.device)
        return self.modules.projection(states_BQW[at_P2[:, 0], at_P2[:, 1]].float())

    def answers(self, texts: Sequence[str]) -> Tensor:
        """(A, D) float32, L2-normalised: the semantic tower of distinct texts."""
        slots = in_slots([[(self.texts.answer_rows(text), None)] for text in texts])
        states_A1W = self._states(self._nothing(len(texts)), slots, slots.emb_Q)
        return self.modules.projection(states_A1W[:, 0].float())

    def answer_states(
        self, read: Read, queries: Sequence[str], answers_BTC: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """States from which an answer's tokens are predicted: one query and answer a reading.

        Args:
            read: B readings.
            queries: B queries.
            answers_BTC: B answers' input rows (t, C).

        Returns:
            (B, T + 1, W): the state at ``<USER_EMB>`` and at each answer token, and (B, T + 1) bool,
            whether a token follows there.
        """
        pairs = zip(queries, answers_BTC, strict=True)
        slots = in_slots([[(self.texts.query_rows(query), rows)] for query, rows in pairs])
        lengths = torch.tensor([len(rows) for rows in answers_BTC], device=read.start_B.device)
        longest = int(lengths.max())
        states = self._states(read, slots, slots.answer_places(longest)[0])
        follows = torch.arange(longest + 1, device=lengths.device).unsqueeze(0) < lengths.unsqueeze(1)
        return states, follows

    def _states(self, read: Read, slots: Slots, wanted_K: Tensor) -> Tensor:
        """(B, K, W): the backbone's states at the wanted places of the slots."""
        rows, age = slots.rows_BSC, self.modules.suffix.age
        if age is not None:
            told = age(read.age_BF).unsqueeze(1)
            at = torch.zeros(rows.shape[1], 1, device=rows.device).index_fill(0, slots.emb_Q, 1.0)
            rows = rows + torch.nn.functional.pad(told, (0, rows.shape[2] - told.shape[2])) * at
        is_suffix = torch.ones(rows.shape[1], dtype=torch.bool, device=rows.device)
        states, _ = self.modules.backbone.encode(
            rows.to(self.modules.compute_dtype),
            slot_positions(slots, read.start_B, time=self.modules.config.time),
            slot_mask(slots, read.valid_BL),
            is_suffix,
            read.kv,
            wanted_K,
        )
        return states

    def _nothing(self, num: int) -> Read:
        """Before an answer stands nothing; of ``meaning``, whose attention needs a token, its start token."""
        start, device = self.modules.start, self.engine.device
        age = torch.zeros(num, 3, device=device)
        if start is None:
            empty = torch.zeros(num, 0, dtype=torch.bool, device=device)
            return Read(kv=None, valid_BL=empty, start_B=empty.sum(1), age_BF=age)
        row = torch.nn.functional.pad(start, (0, self.modules.config.meaning_dim)).view(1, 1, -1)
        valid = torch.ones(1, 1, dtype=torch.bool, device=device)
        kv = self.modules.prefill(row, torch.zeros(1, 1, dtype=torch.int64, device=device), valid)
        spread = [one.expand(num, *one.shape[1:]) for one in kv]
        begun = torch.full((num,), DAY_OFFSET if self.modules.config.time == "day" else 1, device=device)
        return Read(kv=spread, valid_BL=valid.expand(num, -1), start_B=begun, age_BF=age)
