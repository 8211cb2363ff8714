"""What is asked of a deployment."""

from dataclasses import dataclass, fields

from qanchor_plugin.errors import DeclarationError


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Users, their events, and what is asked about them.

    Attributes:
        users: known users.
        events_per_day: of all users together.
        scenarios: registered anchor queries.
        window_hours: a daily refresh must be done in this time.
        dirty_share: users refreshed a day; None estimates it from events (see :meth:`dirty_users`).
        online_qps: requests a second that miss the online store, one user each.
        queries_per_request: anchor queries of such a request.
        tokens: prefix tokens of a user.
        query_tokens: tokens of a query, ``<USER_EMB>`` included.
        history_days: days of behaviour that are kept.
        copies: prefixes and embeddings kept a user (a day each) until vacuum.
        spark_core_seconds: of a dirty user, outside the engine.
        headroom: share of a device's time that is left free.
    """

    users: int
    events_per_day: int
    scenarios: int
    window_hours: float = 6.0
    dirty_share: float | None = None
    online_qps: float = 0.0
    queries_per_request: int = 1
    tokens: int = 700
    query_tokens: int = 21
    history_days: int = 90
    copies: int = 7
    spark_core_seconds: float = 0.165
    headroom: float = 0.3

    def __post_init__(self) -> None:
        faults = [
            f"{one.name} is {getattr(self, one.name)}; it must be above 0."
            for one in fields(self)
            if one.name not in ("dirty_share", "online_qps", "headroom", "events_per_day")
            and getattr(self, one.name) <= 0
        ]
        if min(self.online_qps, self.events_per_day) < 0:
            faults.append("online_qps and events_per_day must be 0 or more.")
        if not 0 <= self.headroom < 1:
            faults.append(f"headroom is {self.headroom}; it is a share, 0 to below 1.")
        if self.dirty_share is not None and not 0 < self.dirty_share <= 1:
            faults.append(f"dirty_share is {self.dirty_share}; it is a share, above 0 to 1.")
        if faults:
            raise DeclarationError(faults)

    @property
    def dirty_users(self) -> float:
        """Users a day whose visible events changed: given, or one minus e to the minus twice the events a
        user and day (each event makes its user dirty when it enters and when it leaves the window)."""
        from math import exp

        if self.dirty_share is not None:
            return self.users * self.dirty_share
        return self.users * (1 - exp(-2 * self.events_per_day / self.users))

    @property
    def window_seconds(self) -> float:
        """Device seconds that one device gives to a refresh."""
        return self.window_hours * 3600 * (1 - self.headroom)
