"""What loading and computing cost on one machine, as ``qanchor calibrate`` measured it."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from qanchor_plugin.errors import LakeError

TIERS = ("memory", "disk", "delta")
FORMAT = 1
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class TierSpeed:
    """How fast a tier answers: ``latency_seconds`` a read, then ``bytes_per_second``, checks included."""

    latency_seconds: float
    bytes_per_second: float

    def seconds(self, num_bytes: float) -> float:
        """Seconds until so many bytes are at hand."""
        return self.latency_seconds + num_bytes / self.bytes_per_second


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Measured constants of one engine on one machine's device.

    Attributes:
        machine: host, processor and cores, for people.
        measured_at: ISO instant.
        versions: of torch, numpy and this package.
        engine, kv_digest, device, dtype: what was measured.
        prefill: (prefix tokens, seconds a user).
        suffix: (queries, seconds a user) at ``suffix_tokens`` prefix tokens.
        suffix_tokens: see ``suffix``.
        query_tokens: tokens of each query, ``<USER_EMB>`` included.
        build_seconds: seconds to make a user's soft tokens, a token.
        token_bytes: bytes of a soft token with its position.
        kv_bytes: by scheme, (prefix tokens, bytes).
        decode: by scheme, (prefix tokens, seconds) from stored bytes to a cache.
        tiers: by name.
    """

    machine: str
    measured_at: str
    versions: Mapping[str, str]
    engine: str
    kv_digest: str
    device: str
    dtype: str
    prefill: Points
    suffix: Points
    suffix_tokens: int
    query_tokens: int
    build_seconds: float
    token_bytes: int
    kv_bytes: Mapping[str, Points]
    decode: Mapping[str, Points]
    tiers: Mapping[str, TierSpeed]

    def prefill_seconds(self, num_tokens: float) -> float:
        """Seconds to prefill one user's prefix."""
        return between(self.prefill, num_tokens)

    def suffix_seconds(self, num_queries: float) -> float:
        """Seconds to answer so many queries of one prefilled user."""
        return line(self.suffix, num_queries)

    def stored_bytes(self, scheme: str, num_tokens: float) -> float:
        """Bytes of one user's keys and values."""
        return line(self.kv_bytes[scheme], num_tokens)

    def load_seconds(self, tier: str, scheme: str, num_tokens: float) -> float:
        """Seconds from a stored cache to one that answers: read, check, decode."""
        read = self.tiers[tier].seconds(self.stored_bytes(scheme, num_tokens))
        return read + max(0.0, line(self.decode[scheme], num_tokens))

    def to_json(self) -> str:
        """The record as JSON; :meth:`read` reads it back equal."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True)

    def write(self, path: Path) -> None:
        """The file holds the record; its folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.new")
        aside.write_text(self.to_json() + "\n", encoding="utf-8")
        aside.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """The record that :meth:`write` wrote.

        Raises:
            LakeError: absent, no JSON, or of another format: run qanchor calibrate again.
        """
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            return cls._of(given)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LakeError(
                f"calibration {path} cannot be read ({type(error).__name__}: {error}). "
                "Write it again: qanchor calibrate."
            ) from error

    @classmethod
    def _of(cls, given: dict[str, Any]) -> "Calibration":
        if given.pop("format") != FORMAT or set(given) != {one.name for one in fields(cls)}:
            raise ValueError(f"it is not of format {FORMAT}")
        for name in ("prefill", "suffix"):
            given[name] = _points(given[name])
        for name in ("kv_bytes", "decode"):
            given[name] = {scheme: _points(points) for scheme, points in given[name].items()}
        given["tiers"] = {name: TierSpeed(**speed) for name, speed in given["tiers"].items()}
        return cls(**given)


def calibration_path(lake: str, given: str | None = None) -> Path | None:
    """Where this machine's constants stand: the given file, else in the lake under the machine's name; None
    for a lake that is no folder."""
    if given is not None:
        return Path(given)
    return None if "://" in lake else Path(lake) / "_calibration" / f"{platform.node() or 'machine'}.json"


def between(points: Sequence[tuple[float, float]], at: float) -> float:
    """Straight lines between the measured points; beyond them in proportion to the nearest."""
    ordered = sorted(points)
    if at <= ordered[0][0]:
        return ordered[0][1] * at / ordered[0][0]
    for (left, low), (right, high) in pairwise(ordered):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return ordered[-1][1] * at / ordered[-1][0]


def line(points: Sequence[tuple[float, float]], at: float) -> float:
    """The straight line nearest to the points (least squares), at a place."""
    count = len(points)
    mean_x, mean_y = (sum(point[axis] for point in points) / count for axis in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else mean_y / mean_x
    return mean_y + slope * (at - mean_x)


def _points(values: Sequence[Sequence[float]]) -> Points:
    return tuple((float(x), float(y)) for x, y in values)
