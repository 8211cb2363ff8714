"""Slices of users and vectors of their texts, made into prefixes.

Every layer here acts row by row; rows go through it in chunks of one fixed shape, so that a user's
tokens are the same bytes whoever else is in the call. Shape letters: N rows, E encoder width, W hidden
width, M meaning width, C = W + M.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qanchor_plugin.engine.features import summary_features
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.prefix import Prefix, Slot, layout, positions
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.sequence.slice import UserSlice

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
FIXED_ROWS = 256

EVENT_MEANING = 0.5
"""Length of an event's meaning key beside a group's: where both match, the group, which counts, is heard."""
MODALITY_MEANING = 0.75
"""Length of a modality token's key, the mean of its events' vectors ("redeemed a coupon for ..."): a query
about that kind of behaviour finds its totals. A longer one drowns the groups."""


class Vectors(Protocol):
    """What holds vectors of texts; see :class:`..event_vectors.VectorSnapshot`."""

    def lookup(self, ids: UInt8) -> npt.NDArray[np.float16]:
        """(N, 16) uint8 ids to (N, E) float16."""
        ...


class PrefixBuilder:
    """Builds the prefixes of one call: all rows of a kind go through their layers together."""

    def __init__(self, modules: EngineModules, users: Sequence[UserSlice], vectors: Vectors) -> None:
        self.modules, self.users = modules, users
        self.config = modules.config
        self.slots = [layout(user, self.config) for user in users]
        self.places: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for number, slots in enumerate(self.slots):
            for place, slot in enumerate(slots):
                self.places.setdefault((slot.kind, slot.modality), []).append((number, place))
        self._find_vectors(vectors)

    def build(self, templates: Sequence[Float32]) -> list[Prefix]:
        """One prefix a user, in order.

        Args:
            templates: (T, W) float32 rows of each user's template.
        """
        width = self.config.token_width
        rows = [np.zeros((len(slots), width), np.float32) for slots in self.slots]
        for (kind, modality), places in self.places.items():
            filled = self._fill(kind, modality, places)
            for (number, place), row in zip(places, filled, strict=True):
                rows[number][place] = row
        return [
            self._prefix(user, slots, template, body)
            for user, slots, template, body in zip(self.users, self.slots, templates, rows, strict=True)
        ]

    def _prefix(self, user: UserSlice, slots: list[Slot], template: Float32, body: Float32) -> Prefix:
        wide = np.zeros((len(template), self.config.token_width), np.float32)
        wide[:, : template.shape[1]] = template
        return Prefix(
            user=user.user,
            visible_digest=user.visible_digest,
            as_of=user.as_of,
            num_events=user.num_events,
            tokens=stored(np.concatenate([wide, body]), self.config.token_dtype),
            positions=positions(
                slots,
                num_template=len(template),
                as_of=user.as_of,
                time=self.config.time,
                epoch_day=self.config.epoch_day,
            ),
        )

    def _find_vectors(self, vectors: Vectors) -> None:
        """Looks every distinct text up once; remembers where each event's and group's vector stands."""
        ids: list[UInt8] = [np.zeros((0, TEXT_ID_BYTES), np.uint8)]
        for user, slots in zip(self.users, self.slots, strict=True):
            if slots:
                ids += [one.text_id for one in user.modalities]
                if self.config.group_tokens:
                    ids += [group.text_id[None] for group in user.groups]
        flat = np.ascontiguousarray(np.concatenate(ids))
        keys, first, place = np.unique(
            flat.view(f"V{TEXT_ID_BYTES}").ravel(), return_index=True, return_inverse=True
        )
        del keys
        self.vectors: Float32 = vectors.lookup(flat[first]).astype(np.float32)
        self.at: dict[tuple[int, str], npt.NDArray[np.intp]] = {}
        used = 0
        for number, (user, slots) in enumerate(zip(self.users, self.slots, strict=True)):
            if not slots:
                continue
            for one in user.modalities:
                self.at[number, one.name] = place[used : used + len(one.text_id)]
                used += len(one.text_id)
            if self.config.group_tokens:
                self.at[number, ""] = place[used : used + len(user.groups)]
                used += len(user.groups)

    def _fill(self, kind: str, modality: str, places: list[tuple[int, int]]) -> Float32:
        """(N, C): the soft tokens of one kind and modality."""
        if kind in ("start", "end"):
            edge = self.modules.hierarchy.edge(modality, kind == "end").detach().cpu().numpy()
            return self._wide(np.broadcast_to(edge, (len(places), len(edge))))
        if kind == "evt":
            return self._event_rows(modality, places)
        if kind == "grp":
            return self._group_rows(places)
        if kind == "mdl":
            return self._modality_rows(modality, places)
        return self._user_rows(places)

    def _event_rows(self, modality: str, places: list[tuple[int, int]]) -> Float32:
        at = np.array([self.at[n, modality][self.slots[n][p].row] for n, p in places])
        distinct, back = np.unique(at, return_inverse=True)
        vectors = self.vectors[distinct]
        hidden = self._rowwise(lambda h: self.modules.hierarchy.events(modality, h), vectors)
        keys = self._keys(vectors)
        return self._wide(hidden, None if keys is None else keys * EVENT_MEANING)[back]

    def _group_rows(self, places: list[tuple[int, int]]) -> Float32:
        vectors = self.vectors[[self.at[n, ""][self.slots[n][p].row] for n, p in places]]
        summaries = [self.users[n].groups[self.slots[n][p].row].summary for n, p in places]
        counts = summary_features(summaries, [self.users[n].as_of for n, _ in places])
        hidden = self._rowwise(self.modules.hierarchy.groups, vectors, counts)
        return self._wide(hidden, self._keys(vectors))

    def _modality_rows(self, modality: str, places: list[tuple[int, int]]) -> Float32:
        means = np.stack([self._mean(n, modality) for n, _ in places])
        hidden = self._rowwise(self.modules.hierarchy.modalities, means)
        keys = self._keys(means)
        if keys is not None:  # an absent mean has no direction
            keys = keys * (MODALITY_MEANING * np.any(means, axis=1, keepdims=True)).astype(np.float32)
        return self._wide(hidden + self._totals(modality, [n for n, _ in places]), keys)

    def _user_rows(self, places: list[tuple[int, int]]) -> Float32:
        numbers = [n for n, _ in places]
        means = np.stack([self._user_mean(n) for n in numbers])
        hidden = self._rowwise(self.modules.hierarchy.users, means)
        names = dict.fromkeys(one.name for n in numbers for one in self.users[n].modalities)
        for name in names:
            hidden = hidden + self._totals(name, numbers)
        return self._wide(hidden)

    def _mean(self, number: int, modality: str) -> Float32:
        at = self.at[number, modality]
        empty = np.zeros(self.vectors.shape[1], np.float32)
        return self.vectors[at].mean(axis=0, dtype=np.float32) if len(at) else empty

    def _user_mean(self, number: int) -> Float32:
        """The mean over present modalities; an absent one is left out, not counted as zero."""
        names = [one.name for one in self.users[number].modalities if len(self.at[number, one.name])]
        means = [self._mean(number, name) for name in names]
        return np.mean(means, axis=0, dtype=np.float32) if means else self._mean(number, self._any(number))

    def _any(self, number: int) -> str:
        return self.users[number].modalities[0].name

    def _totals(self, modality: str, numbers: list[int]) -> Float32:
        if not self.config.summaries:
            return np.zeros((len(numbers), self.config.hidden), np.float32)
        by_name = [{one.name: one.summary for one in self.users[n].modalities} for n in numbers]
        as_of = [self.users[n].as_of for n in numbers]
        counts = summary_features([one.get(modality) for one in by_name], as_of)
        return self._rowwise(lambda f: self.modules.hierarchy.totals(modality, f), counts)

    def _keys(self, vectors: Float32) -> Float32 | None:
        return None if self.modules.space is None else self._rowwise(self.modules.space.texts, vectors)

    def _wide(self, hidden: npt.NDArray[Any], keys: Float32 | None = None) -> Float32:
        wide = np.zeros((len(hidden), self.config.token_width), np.float32)
        wide[:, : hidden.shape[1]] = hidden
        if keys is not None:
            wide[:, hidden.shape[1] :] = keys
        return wide

    def _rowwise(self, layer: Callable[..., Tensor], *inputs: Float32) -> Float32:
        """The layer's output for every row, in forwards of exactly ``FIXED_ROWS`` rows."""
        device = next(self.modules.hierarchy.parameters()).device
        parts = []
        for start in range(0, len(inputs[0]), FIXED_ROWS):
            chunk = [array[start : start + FIXED_ROWS] for array in inputs]
            size = len(chunk[0])
            padded = [
                np.concatenate([one, np.zeros((FIXED_ROWS - size, one.shape[1]), np.float32)])
                for one in chunk
            ]
            out = layer(*(torch.from_numpy(one).to(device) for one in padded))
            parts.append(out[:size].detach().float().cpu().numpy())
        return np.concatenate(parts)


def stored(rows: Float32, dtype: str) -> npt.NDArray[Any]:
    """Rows as they are stored: float16, float32, or bfloat16 as uint16 bit patterns."""
    if dtype == "bfloat16":
        return torch.from_numpy(rows).to(torch.bfloat16).view(torch.uint16).numpy()
    return rows.astype(dtype)


def restored(rows: npt.NDArray[Any], dtype: str) -> Tensor:
    """What :func:`stored` wrote, as a tensor of that type."""
    tensor = torch.from_numpy(np.ascontiguousarray(rows))
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
