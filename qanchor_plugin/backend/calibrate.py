"""What an engine and the tiers cost on this machine, measured through the paths that serve."""

import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from qanchor_plugin.backend.measured_tiers import Kept, least, tier_speeds
from qanchor_plugin.backend.measured_user import CountedVectors, random_prefix, random_slices
from qanchor_plugin.engine.kv import SCHEMES
from qanchor_plugin.errors import EngineError
from qanchor_plugin.prefix_store import Calibration

LENGTHS = (64, 256, 700)
QUERIES = (1, 10)
Progress = Callable[[str], None]


def calibrate(
    engine: Any,
    *,
    lake: Path,
    disk: Path | None,
    lengths: Sequence[int] = LENGTHS,
    repeats: int = 3,
    progress: Progress = lambda _: None,
) -> Calibration:
    """Constants of this engine on this machine and its device.

    Args:
        engine: a loaded ``QueryAnchorEngine``.
        lake: a folder on the lake's storage; what is written there is removed again.
        disk: a folder on the local disk; None measures the temporary folder's.
        lengths: prefix tokens to measure at, two at least.
        repeats: each figure is the least of so many.
        progress: told what is measured next.

    Raises:
        EngineError: fewer than two lengths, or an engine whose keys cannot be stored.
    """
    lengths = sorted(set(lengths))
    if len(lengths) < 2 or lengths[0] < 1:
        raise EngineError(f"prefix lengths {lengths} were given; give two different ones or more, from 1.")
    seconds = _Seconds(engine, 1 if engine.device.type == "cpu" else 32, repeats, progress)
    kept = {
        length: {
            scheme: engine.prefill([random_prefix(engine, length)], scheme=scheme)[0] for scheme in SCHEMES
        }
        for length in lengths
    }
    computed = seconds.computed(kept)
    with _scratch(lake) as on_lake, _scratch(disk) as on_disk:
        places = {"on_lake": on_lake, "on_disk": on_disk}
        tiers = tier_speeds(engine, kept, **places, repeats=repeats, progress=progress)
    return Calibration(
        machine=machine(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        engine=engine.config.name,
        kv_digest=engine.kv_digest,
        device=_device(engine),
        dtype=str(engine.modules.compute_dtype).removeprefix("torch."),
        token_bytes=random_prefix(engine, 1).tokens.nbytes + 4,
        kv_bytes=_points(kept, lambda _, one: float(one.payload.nbytes)),
        tiers=tiers,
        **computed,
    )


def machine() -> str:
    """Host, processor's architecture and the cores that this process may use."""
    import os

    return f"{platform.node()}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores"


class _Seconds:
    """Seconds a user, the least of some repeats."""

    def __init__(self, engine: Any, users: int, repeats: int, progress: Progress) -> None:
        self._engine, self._users, self._repeats, self._progress = engine, users, repeats, progress

    def computed(self, kept: Kept) -> dict[str, Any]:
        """The fields of a calibration that the engine alone decides."""
        self._progress("queries over stored prefixes")
        decode = _points(kept, self.decode)
        ready = dict(decode["bf16"])
        middle = sorted(kept)[len(kept) // 2]
        suffix = [
            (float(n), max(1e-9, self.cached(middle, n, kept[middle]["bf16"]) - ready[middle]))
            for n in QUERIES
        ]
        prefill = []
        for length in sorted(kept):
            self._progress(f"prefill of {length} tokens")
            asked = self.cached(length, 1, kept[length]["bf16"]) - ready[length]
            prefill.append((float(length), max(1e-9, self.uncached(length, 1) - asked)))
        self._progress("soft tokens of a user")
        return {
            "prefill": tuple(prefill),
            "suffix": tuple(suffix),
            "suffix_tokens": middle,
            "query_tokens": self.queries(1)[0].num_tokens,
            "build_seconds": self.build(),
            "decode": decode,
        }

    def queries(self, count: int) -> list[Any]:
        """Questions of one length."""
        return [self._engine.prepare_query(f"Will they buy {n:03}?") for n in range(count)]

    def uncached(self, length: int, count: int) -> float:
        """Prefill and so many queries."""
        prefixes, queries = self._prefixes(length), self.queries(count)
        return self._least(lambda: self._engine.embed(prefixes, queries, [0] * len(prefixes)))

    def cached(self, length: int, count: int, kept: Any) -> float:
        """Decoding and so many queries."""
        prefixes, queries = self._prefixes(length), self.queries(count)
        ready = [kept] * len(prefixes)
        return self._least(lambda: self._engine.embed(prefixes, queries, [0] * len(prefixes), kept=ready))

    def decode(self, length: int, kept: Any) -> float:
        """Stored bytes to a cache on the device."""
        from qanchor_plugin.engine.kv_codec import decode

        prefixes = self._prefixes(length)
        return self._least(lambda: decode(self._engine.modules, [kept] * len(prefixes), prefixes, length))

    def build(self) -> float:
        """Events to soft tokens, a token."""
        slices = random_slices(4)
        vectors = CountedVectors(self._engine.encoder_dim)
        made = self._engine.build_prefixes(slices, vectors)
        tokens = sum(len(one.tokens) for one in made)
        seconds = least(lambda: self._engine.build_prefixes(slices, vectors), self._repeats)
        return seconds / tokens

    def _prefixes(self, length: int) -> list[Any]:
        return [random_prefix(self._engine, length)] * self._users

    def _least(self, work: Callable[[], Any]) -> float:
        import torch

        def finished() -> None:
            with torch.inference_mode():
                work()
            if self._engine.device.type == "cuda":
                torch.cuda.synchronize()

        return least(finished, self._repeats) / self._users


def _points(kept: Kept, of: Callable[[int, Any], float]) -> dict[str, Any]:
    """By scheme, a figure at every length."""
    return {
        scheme: tuple((float(length), of(length, kept[length][scheme])) for length in sorted(kept))
        for scheme in SCHEMES
    }


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".calibrate-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _device(engine: Any) -> str:
    if engine.device.type != "cuda":
        return "cpu"
    import torch

    return torch.cuda.get_device_name(engine.device)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("torch", "transformers", "deltalake", "feast-qanchor"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
