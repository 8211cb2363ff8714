"""What each labelled user had done at the row's own instant, as prefixes: read point in time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.backend.vectors import OnlineVectors, vector_folder
from qanchor_plugin.declare import Profile
from qanchor_plugin.engine.event_vectors import VectorSnapshot
from qanchor_plugin.engine.prefix import Prefix
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.sequence import UserSlice, slice_at
from qanchor_plugin.training.tuning.labels import LabelledRows

if TYPE_CHECKING:
    from qanchor_plugin.engine import QueryAnchorEngine

USERS_TOGETHER = 512


@dataclass(frozen=True, kw_only=True)
class LabelledPrefixes:
    """Rows with the behaviour that stood before them.

    Attributes:
        rows: those that have some.
        prefixes: one a row.
        num_unknown: rows left out because the lake never saw the user.
        num_empty: rows left out because the user had no event yet (or none in the profile's window).
    """

    rows: LabelledRows
    prefixes: tuple[Prefix, ...]
    num_unknown: int
    num_empty: int


@dataclass(frozen=True)
class UsersAt:
    """Users as an engine reads them at one cutoff (microseconds), in order, with or without events."""

    slices: list[UserSlice]
    prefixes: list[Prefix]
    cutoff: int


def users_at(
    users: Sequence[bytes], cutoff: int, profile: Profile, engine: "QueryAnchorEngine", tables: LakeTables
) -> UsersAt:
    """Every user's slice and prefix at the cutoff.

    Args:
        users: entity keys; the lake knows each of them (KeyError).

    Raises:
        LakeError, MissingVectorsError: the lake was not built.
    """
    reader = LakeReader(tables)
    vectors = VectorSnapshot.open(vector_folder(tables.lake, engine.encoder_id))
    slices: list[UserSlice] = []
    prefixes: list[Prefix] = []
    for start in range(0, len(users), USERS_TOGETHER):
        keys = users[start : start + USERS_TOGETHER]
        histories = reader.histories(profile, keys)
        seen = [slice_at(histories[key], profile, cutoff) for key in keys]
        slices += seen
        prefixes += engine.build_prefixes(seen, vectors)
    return UsersAt(slices, prefixes, cutoff)


def behaviour_at(
    rows: LabelledRows,
    profile: Profile,
    engine: "QueryAnchorEngine",
    tables: LakeTables,
    *,
    now: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> LabelledPrefixes:
    """Each row's prefix, of what was known at its instant: the rule of ``get_historical_features`` (exact).

    Args:
        rows: the labels.
        profile: whose events.
        engine: builds the prefixes.
        tables: the lake.
        now: microseconds; rows of later instants are refused.
        progress: told of how many rows are done.

    Raises:
        InputDataError: an instant after ``now``, no known user, or nobody with an event at the row's instant.
        LakeError, MissingVectorsError: the lake was not built.
    """
    _refuse_later(rows, now)
    reader = LakeReader(tables)
    vectors = OnlineVectors(vector_folder(tables.lake, engine.encoder_id), reader, engine)
    order = sorted(range(len(rows)), key=lambda place: rows.users[place])
    kept: dict[int, Prefix] = {}
    num_unknown = 0
    for start in range(0, len(order), USERS_TOGETHER):
        chunk = order[start : start + USERS_TOGETHER]
        histories = reader.histories(profile, sorted({rows.users[place] for place in chunk}))
        known = [place for place in chunk if rows.users[place] in histories]
        num_unknown += len(chunk) - len(known)
        seen = [slice_at(histories[rows.users[place]], profile, int(rows.cutoffs[place])) for place in known]
        kept.update(_built(known, seen, engine, vectors))
        if progress is not None:
            progress(start + len(chunk))
    if not kept:
        raise InputDataError(_nothing(rows, num_unknown, profile))
    places = sorted(kept)
    return LabelledPrefixes(
        rows=rows.take(places),
        prefixes=tuple(kept[place] for place in places),
        num_unknown=num_unknown,
        num_empty=len(rows) - num_unknown - len(kept),
    )


def _built(
    places: list[int], seen: list[UserSlice], engine: "QueryAnchorEngine", vectors: OnlineVectors
) -> dict[int, Prefix]:
    """Prefixes of the slices that hold an event; equal slices are built once."""
    distinct = {(one.user, one.visible_digest): one for one in seen if one.num_events}
    built = dict(zip(distinct, engine.build_prefixes(list(distinct.values()), vectors), strict=True))
    return {
        place: built[one.user, one.visible_digest]
        for place, one in zip(places, seen, strict=True)
        if one.num_events
    }


def _refuse_later(rows: LabelledRows, now: int | None) -> None:
    if now is None:
        return
    later = int((rows.cutoffs > now).sum())
    if later:
        newest = np.datetime64(int(rows.cutoffs.max()), "us")
        raise InputDataError(
            f"{later} rows have an instant after the store's clock {np.datetime64(now, 'us')}Z (the newest "
            f"is {newest}Z): nothing is known of then. Give the instant at which the label's window begins."
        )


def _nothing(rows: LabelledRows, num_unknown: int, profile: Profile) -> str:
    oldest, newest = (np.datetime64(int(one), "us") for one in (rows.cutoffs.min(), rows.cutoffs.max()))
    if num_unknown == len(rows):
        return (
            f"none of the {len(rows)} rows names a user that the lake knows. Check the join keys "
            f"{list(profile.join_keys)} and their types, or run feast materialize."
        )
    return (
        f"no row has any behaviour before it: {num_unknown} of {len(rows)} rows name unknown users, the "
        f"others have no event at their instants ({oldest}Z to {newest}Z). Labels follow behaviour: "
        "give later instants, or load older events."
    )
