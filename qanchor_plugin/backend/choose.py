"""The one place that decides who computes: the configuration, and nothing else."""

from qanchor_plugin.backend.local import LocalBackend
from qanchor_plugin.backend.protocol import Backend
from qanchor_plugin.declare import Settings
from qanchor_plugin.extras import require
from qanchor_plugin.prefix_store import LakeTables


def backend_of(settings: Settings, *, tables: LakeTables | None = None) -> Backend:
    """The pool of workers where ``qanchor: worker:`` names one, else this process.

    Args:
        tables: the lake as this process already reads it; for this process's own engine.

    Raises:
        MissingExtraError: what a pool needs is not installed.
    """
    if settings.worker is None:
        return LocalBackend(settings, tables=tables)
    for module in ("tenacity", "uhashring", "pybreaker"):
        require(module, purpose="Asking a pool of workers")
    from qanchor_plugin.backend.flight import FlightBackend

    return FlightBackend(settings.worker)
