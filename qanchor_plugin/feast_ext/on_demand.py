"""The on-demand view for a query that nobody registered.

Feast keeps the text of an on-demand function and nothing around it, so the view stands in the user's own
file, names its profile literally, and imports one name inside (feast_repo/on_demand.py)::

    def ad_hoc(inputs: pd.DataFrame) -> pd.DataFrame:
        from qanchor_plugin.feast_ext.on_demand import answer_adhoc

        return answer_adhoc(inputs, "household_journey")

The mode is ``pandas``: Feast drops a ``python`` view's answers when full feature names are asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pandas as pd
from feast.infra.registry.base_registry import BaseRegistry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

from qanchor_plugin.backend import Answer, Ask
from qanchor_plugin.declare import Profile, Settings
from qanchor_plugin.errors import BackendError, DeclarationError, InputDataError, OnlineMissError
from qanchor_plugin.feast_ext import online_rows as R
from qanchor_plugin.feast_ext.counters import ANSWERS
from qanchor_plugin.feast_ext.declarations import declarations_from_registry
from qanchor_plugin.feast_ext.online_misses import MissAnswerer

QUERY_FIELD = "anchor_query"
"""The request field that carries the question."""

ADHOC_EMBEDDING = "__qanchor_adhoc_embedding"
"""The column that the offline store puts into the input: each row's embedding as of its instant."""

FEAST_SAMPLE = "hello world"
"""The text that ``feast apply`` runs an on-demand function on to learn its output's types."""


@dataclass(frozen=True)
class AdhocAsker:
    """What an on-demand view needs of the process: a registry for profiles, and who answers."""

    settings: Settings
    misses: Callable[[], MissAnswerer]
    registry: BaseRegistry
    project: str

    def profile(self, name: str) -> Profile:
        """The profile of that name, as a registered scenario declares it.

        Raises:
            DeclarationError: no scenario of the store uses it.
        """
        profiles = declarations_from_registry(self.registry, self.project, allow_cache=True).profiles
        if name not in profiles:
            raise DeclarationError(
                f"on-demand view: profile {name!r} is not known to the registry (known: {sorted(profiles)}). "
                "Declare one anchor_view of it, or correct the name in the on-demand function."
            )
        return profiles[name]

    def answer(
        self, profile: Profile, keys: list[EntityKey], queries: list[str]
    ) -> list[Answer | str | None]:
        """One answer a row; None for a user never seen, and a status where there is no answer.

        All rows go to the backend in one call: (their users) x (their distinct queries).
        """
        users = [R.entity_user(key) for key in keys]
        distinct = list(dict.fromkeys(users))
        asked = list(dict.fromkeys(queries))
        now = R.micros_of(self.settings.now())
        asks = [Ask(profile=profile, query=query, engine=self.settings.engine) for query in asked]
        try:
            found = self.misses().answer(distinct, now, asks)
        except BackendError:
            if self.settings.on_miss == "error":
                raise OnlineMissError(len(keys), scenarios=["ad hoc"]) from None
            return [R.MISSING] * len(keys)
        row, column = {u: i for i, u in enumerate(distinct)}, {q: i for i, q in enumerate(asked)}
        return [found[row[u]][column[q]] for u, q in zip(users, queries, strict=True)]


_asker: ContextVar[AdhocAsker | None] = ContextVar("qanchor_adhoc_asker", default=None)


@contextmanager
def answering_with(asker: AdhocAsker) -> Iterator[None]:
    """Inside, in this thread and those it starts by asyncio, on-demand views are answered by ``asker``."""
    token = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(token)


def answer_adhoc(inputs: pd.DataFrame, profile: str) -> pd.DataFrame:
    """The columns ``embedding``, ``embedding_id``, ``num_events`` and ``status`` of an on-demand view.

    Args:
        inputs: columns of the request: ``anchor_query`` and the profile's join keys; historically the
            offline store's own column instead.
        profile: name of the profile to ask.

    Raises:
        InputDataError: no query, an empty one, no join key, or a call outside a request.
        DeclarationError: the profile is unknown.
        OnlineMissError: there is no answer and ``on_miss`` is ``error``.
    """
    queries = inputs[QUERY_FIELD].tolist() if QUERY_FIELD in inputs else []
    if ADHOC_EMBEDDING in inputs:
        return _stored_columns(inputs[ADHOC_EMBEDDING].tolist())
    asker = _asker.get()
    if asker is None:
        return _sample_columns(queries)
    declared = asker.profile(profile)
    keys = _entity_keys(declared, inputs, len(queries))
    empty = [row for row, query in enumerate(queries) if not isinstance(query, str) or not query.strip()]
    if empty or not queries:
        raise InputDataError(
            f"rows {empty[:10]} have no {QUERY_FIELD!r}; give every row its question as text, in plain words."
        )
    return _columns(asker.answer(declared, keys, queries))


def _entity_keys(profile: Profile, inputs: pd.DataFrame, num_rows: int) -> list[EntityKey]:
    missing = [name for name in profile.join_keys if name not in inputs]
    if missing:
        raise InputDataError(
            f"the request has no {missing}; profile {profile.name!r} is of {list(profile.join_keys)}. "
            "Add the key to every entity row."
        )
    columns = []
    for entity in profile.entities:
        values = inputs[entity.join_key].tolist()
        absent = [row for row, value in enumerate(values) if value is None or value != value]
        if absent:
            raise InputDataError(f"rows {absent[:10]} have no {entity.join_key!r} (null). Give each its key.")
        columns.append(python_values_to_proto_values(values, ValueType[entity.value_type]))
    return [
        EntityKey(join_keys=profile.join_keys, entity_values=[column[row] for column in columns])
        for row in range(num_rows)
    ]


def _columns(answers: list[Answer | str | None]) -> pd.DataFrame:
    found = [answer if isinstance(answer, Answer) else None for answer in answers]
    statuses = [R.COMPUTED if isinstance(a, Answer) else R.UNKNOWN if a is None else a for a in answers]
    for status in statuses:
        ANSWERS.labels(status).inc()
    return _frame(
        [None if one is None else one.embedding.tolist() for one in found],
        [None if one is None else one.embedding_id for one in found],
        [None if one is None else one.num_events for one in found],
        statuses,
    )


def _stored_columns(embeddings: list[Any]) -> pd.DataFrame:
    """What the offline store computed at each row's instant; it carries no more than the vector."""
    vectors = [None if one is None else list(one) for one in embeddings]
    nothing: list[Any] = [None] * len(vectors)
    return _frame(vectors, nothing, nothing, [R.UNKNOWN if one is None else R.COMPUTED for one in vectors])


def _sample_columns(queries: list[Any]) -> pd.DataFrame:
    """Nothing known of anyone, in the output's types: Feast learns them from its sample at apply."""
    if queries != [FEAST_SAMPLE]:
        raise InputDataError(
            "an on-demand anchor view was called outside a request of qanchor's provider and offline store. "
            "Set provider: qanchor_plugin.feast_ext.provider.QAnchorProvider and offline_store: type: "
            "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore in feature_store.yaml."
        )
    return _frame([[0.0]], [""], [0], [R.MISSING])


def _frame(
    embeddings: list[Any], ids: list[str | None], num_events: list[int | None], statuses: list[str]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "embedding": pd.Series(embeddings, dtype=object),
            "embedding_id": pd.Series(ids, dtype=object),
            "num_events": pd.Series(num_events, dtype="Int64"),
            R.STATUS: pd.Series(statuses, dtype=object),
        }
    )
