"""Whether keys and values are kept and loaded: computed from measured constants, or told by the settings."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qanchor_plugin.declare import Settings
from qanchor_plugin.engine.kv import SCHEMES, KeptKV
from qanchor_plugin.errors import LakeError
from qanchor_plugin.prefix_store.calibration import Calibration, calibration_path

_log = logging.getLogger(__name__)


class KeepsKV(Protocol):
    """What is asked of an engine here."""

    @property
    def kv_digest(self) -> str:
        """Identity of its keys and values; a pass over all weights the first time."""

    def prefill(self, prefixes: Sequence[Any], *, scheme: str) -> list[KeptKV]:
        """See ``QueryAnchorEngine.prefill``."""


@dataclass(frozen=True, kw_only=True)
class KVPolicy:
    """Load where it is quicker than prefilling; the lossless scheme first.

    Attributes:
        mode: ``auto``, ``never`` or ``always``.
        schemes: those allowed, in order of preference.
        kv_digest: the engine whose keys and values are meant; "" where none are used.
        calibration: this machine's constants of this engine; None without.
        reason: why nothing is computed, for people; "" where it is.
    """

    mode: str
    schemes: tuple[str, ...]
    kv_digest: str = ""
    calibration: Calibration | None = None
    reason: str = ""

    def loads(self, tier: str, scheme: str, num_tokens: int) -> bool:
        """Whether a stored cache of that tier is taken rather than prefilled anew."""
        if self.mode != "auto":
            return self.mode == "always"
        costs = self.calibration
        if costs is None or tier not in costs.tiers or scheme not in costs.kv_bytes:
            return False
        return costs.load_seconds(tier, scheme, num_tokens) < costs.prefill_seconds(num_tokens)

    def scheme_for(self, tier: str, num_tokens: int) -> str | None:
        """The scheme to keep for a tier; None where prefilling is quicker."""
        return next((one for one in self.schemes if self.loads(tier, one, num_tokens)), None)

    def reads(self, tier: str, *, longest: int = 4096) -> bool:
        """Whether any length pays: what decides if the column is read at all."""
        lengths = (16, 64, 256, 1024, longest)
        return any(self.scheme_for(tier, length) is not None for length in lengths)

    def prefill(self, engine: KeepsKV, prefixes: Sequence[Any], *tiers: str) -> list[KeptKV | None]:
        """Keys and values of the prefixes for which a tier pays, None for the others.

        Args:
            engine: the policy's.
            prefixes: its own.
            tiers: where they would be held; the first that pays chooses the scheme.
        """
        schemes = [
            next((one for tier in tiers if (one := self.scheme_for(tier, len(prefix.tokens)))), None)
            for prefix in prefixes
        ]
        kept: list[KeptKV | None] = [None] * len(prefixes)
        for scheme in dict.fromkeys(one for one in schemes if one is not None):
            rows = [row for row, one in enumerate(schemes) if one == scheme]
            made = engine.prefill([prefixes[row] for row in rows], scheme=scheme)
            for row, ready in zip(rows, made, strict=True):
                kept[row] = ready
        return kept


NEVER = KVPolicy(mode="never", schemes=(), reason="kv is 'never': soft tokens alone are stored")
"""Soft tokens alone."""


def kv_policy(settings: Settings, engine: KeepsKV) -> KVPolicy:
    """The policy of a feature repo for one engine on this machine.

    Args:
        settings: ``kv``, ``kv_scheme``, ``calibration`` and ``lake``.
        engine: constants measured with another are not used.
    """
    if settings.kv == "never":
        return NEVER
    schemes = SCHEMES if settings.kv_scheme == "auto" else (settings.kv_scheme,)
    if settings.kv == "always":
        return KVPolicy(mode="always", schemes=schemes, kv_digest=engine.kv_digest)
    costs, reason = _constants(settings, engine)
    if costs is None:
        _log.info("soft tokens alone are stored: %s", reason)
        return KVPolicy(mode="auto", schemes=schemes, reason=reason)
    return KVPolicy(mode="auto", schemes=schemes, kv_digest=costs.kv_digest, calibration=costs)


def _constants(settings: Settings, engine: KeepsKV) -> tuple[Calibration | None, str]:
    path = calibration_path(settings.lake, settings.calibration)
    if path is None or not path.exists():
        return None, f"no constants of this machine ({path or 'no calibration: set'}); run qanchor calibrate"
    try:
        costs = Calibration.read(path)
    except LakeError as error:
        return None, str(error)
    if costs.kv_digest != engine.kv_digest:
        return None, f"{path} was measured with another engine ({costs.engine}); run qanchor calibrate"
    return costs, ""
