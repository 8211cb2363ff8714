"""Users leave the caches of every worker of the pool: memory, and the disk beside it."""

import base64
import json
from collections.abc import Callable, Sequence
from functools import partial

from qanchor_plugin.backend.channels import Channels
from qanchor_plugin.backend.discovery import discovery_of
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.errors import BackendError

USERS_A_CALL = 1000


def forget_hooks(settings: WorkerSettings | None) -> dict[str, Callable[[Sequence[bytes]], int]]:
    """By ``worker host:port``: removes users from that worker's caches and says how many entries went.

    Raises:
        BackendError: the workers' name cannot be looked up.
    """
    if settings is None:
        return {}
    addresses = discovery_of(settings).addresses(seconds=settings.connect_timeout_ms / 1000)
    return {f"worker {one}": partial(_forget, settings, one) for one in addresses}


def _forget(settings: WorkerSettings, address: str, users: Sequence[bytes]) -> int:
    import pyarrow as pa
    import pyarrow.flight as fl

    channels = Channels(settings)
    try:
        options = fl.FlightCallOptions(timeout=settings.timeout_ms / 1000, headers=channels.headers())
        dropped = 0
        for start in range(0, len(users), USERS_A_CALL):
            named = [base64.b64encode(one).decode() for one in users[start : start + USERS_A_CALL]]
            action = fl.Action("forget", json.dumps({"users": named}).encode())
            for result in channels.client(address).do_action(action, options):
                dropped += json.loads(result.body.to_pybytes())["dropped"]
        return dropped
    except (pa.ArrowException, OSError) as error:
        raise BackendError(
            f"worker {address} did not forget ({type(error).__name__}: {str(error).splitlines()[0]}). Start "
            "it or take it out of 'qanchor: worker:', then run qanchor forget again."
        ) from error
    finally:
        channels.close()
