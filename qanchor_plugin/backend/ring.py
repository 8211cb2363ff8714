"""Consistent hashing: each user has their worker, so that its memory holds their prefix."""

from collections.abc import Sequence

from qanchor_plugin.extras import require


class WorkerRing:
    """Users over workers: when a worker comes or goes, only its own users move.

    Args:
        addresses: the workers.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        uhashring = require("uhashring", purpose="Asking a pool of workers")
        self.addresses = tuple(addresses)
        self._ring = uhashring.HashRing(list(addresses))

    def home(self, user: bytes) -> str:
        """The worker of this user."""
        return str(self._ring.get_node(user.hex()))

    def order(self, user: bytes) -> list[str]:
        """Every worker: the user's own, then those that take over, in turn."""
        return [str(name) for name in self._ring.iterate_nodes(user.hex())]
