"""The users of one shard as readings, made when first asked for and kept while the shard is."""

from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.declare import Profile
from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import TEXT_ID_BYTES
from qanchor_plugin.sequence import UserHistory, slice_at
from qanchor_plugin.training.pair_table import OUTCOME, PairRows
from qanchor_plugin.training.reading import Reading, reading_of


class ShardReadings:
    """Pairs of a shard, and the readings that they are about.

    Args:
        pairs: from :meth:`PairTable.shard`.
        reader: gives the users' histories.
        profile: whose behaviour is read.
        config: the engine's.
        num_template: tokens before the soft ones.
        where: names the shard in errors.

    Attributes:
        outcomes: by key number, the pair of each outcome question.
        others: by key number, the pairs of other kinds.

    Raises:
        InputDataError: a user of the pairs is not in the lake.
    """

    def __init__(
        self,
        pairs: PairRows,
        reader: LakeReader,
        profile: Profile,
        config: EngineConfig,
        *,
        num_template: int,
        where: str,
    ) -> None:
        self.pairs, self._profile, self._config, self._where = pairs, profile, config, where
        self._num_template = num_template
        users = sorted({user for user, _ in pairs.keys})
        self._histories: dict[bytes, UserHistory] = reader.histories(profile, users)
        missing = [user for user in users if user not in self._histories]
        if missing:
            raise InputDataError(
                f"{len(missing)} of {len(users)} users of {where} have no history of profile "
                f"{profile.name!r} "
                "in the lake. The pairs are of another profile or lake: make them again (qanchor pairs "
                "--until "
                "INSTANT), after feast materialize."
            )
        self._texts: dict[bytes, int] = {}
        self._readings: dict[int, Reading] = {}
        self._is_empty: dict[int, bool] = {}
        self.outcomes: dict[int, dict[str, int]] = {}
        self.others: dict[int, list[int]] = {}
        for place, key in enumerate(pairs.key_of):
            if pairs.kinds[place] == OUTCOME:
                self.outcomes.setdefault(key, {})[pairs.queries[place]] = place
            else:
                self.others.setdefault(key, []).append(place)

    def reading(self, key: int) -> Reading:
        """The reading of ``pairs.keys[key]``; its texts are rows of :meth:`text_ids`."""
        found = self._readings.get(key)
        if found is None:
            user, cutoff = self.pairs.keys[key]
            one = slice_at(self._histories[user], self._profile, cutoff)
            self._is_empty[key] = one.as_of is None
            found = reading_of(one, self._config, self._rows, num_template=self._num_template)
            self._readings[key] = found
        return found

    def is_empty(self, key: int) -> bool:
        """Whether the user has no event at all at that cutoff (a static row is none)."""
        self.reading(key)
        return self._is_empty[key]

    def refuse_if_all_empty(self) -> None:
        """Some reading of the shard has an event.

        Raises:
            InputDataError: no user of the shard has any event at any of the pairs' cutoffs.
        """
        if not all(self.is_empty(key) for key in range(len(self.pairs.keys))):
            return
        raise InputDataError(
            f"all {len(self._histories)} users of {self._where} are empty: none has an event at any of its "
            f"{len(self.pairs.keys)} cutoffs under profile {self._profile.name!r}. Look at one with qanchor "
            "preview; widen the profile's window, or make pairs with later cutoffs."
        )

    def text_ids(self) -> npt.NDArray[np.uint8]:
        """(V, 16) uint8: the texts of all readings made so far."""
        return np.frombuffer(b"".join(self._texts), np.uint8).reshape(-1, TEXT_ID_BYTES)

    def _rows(self, ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
        texts: dict[Any, int] = self._texts
        rows = [texts.setdefault(one.tobytes(), len(texts)) for one in ids]
        return np.array(rows, np.intp)
