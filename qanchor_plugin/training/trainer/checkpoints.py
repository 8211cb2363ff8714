"""Checkpoints that are there whole or not at all, and are checked before they are used.

A checkpoint is a folder ``step-00000050`` with ``weights.safetensors`` (what is trained, and buffers),
``optimizer.pt`` (loaded with ``weights_only``: nothing is unpickled) and ``manifest.json``, written last.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qanchor_plugin.errors import EngineError

FORMAT = 1
MANIFEST, WEIGHTS, OPTIMIZER = "manifest.json", "weights.safetensors", "optimizer.pt"
_SCRATCH = ".writing-"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was saved.

    Attributes:
        step: steps taken until then.
        weights: by name, on the CPU.
        optimizer: its state dict; None where it was not saved.
        facts: the rest of the manifest.
    """

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: made when absent.
        keep: the newest so many stay.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder, self._keep = folder, keep

    def clear_scratch(self) -> None:
        """What a killed process left half written is gone."""
        for one in self.folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(one, ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps with a checkpoint, whole or not, newest first."""
        return sorted((int(one.name[5:]) for one in self.folder.glob("step-*")), reverse=True)

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Any] | None,
        facts: Mapping[str, Any],
    ) -> Path:
        """The checkpoint of ``step`` stands on the disk, and older ones beyond ``keep`` are gone.

        Raises:
            EngineError: it cannot be written; names the last good one, which stays.
        """
        target = self.path(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(target, weights, optimizer, {**facts, "step": step})
        except OSError as error:
            good = [one for one in self.steps() if one != step]
            last = f"the last good one is {self.path(good[0])}" if good else "there is no earlier one"
            raise EngineError(
                f"checkpoint {target} could not be written ({error}); {last}. Free space or mend "
                "permissions, "
                "then run again with --resume."
            ) from error
        for old in self.steps()[self._keep :]:
            shutil.rmtree(self.path(old), ignore_errors=True)
        return target

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint (None where there is none at all), and why newer ones were passed over.

        Raises:
            EngineError: there are checkpoints and none is whole.
        """
        faults: list[str] = []
        for step in self.steps():
            try:
                return read_checkpoint(self.path(step)), faults
            except EngineError as error:
                faults.append(f"passed over a broken checkpoint: {error}")
        if faults:
            raise EngineError(
                f"no checkpoint in {self.folder} is whole. "
                + " ".join(faults)
                + " Train again in another folder."
            )
        return None, faults

    def path(self, step: int) -> Path:
        """Where the checkpoint of ``step`` stands."""
        return self.folder / f"step-{step:08d}"


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in ``folder``, after a check of every file's size and digest.

    Raises:
        EngineError: absent, truncated, altered or of another format; names the file.
    """
    from safetensors.torch import load

    path = folder / MANIFEST
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        files = {name: _checked(folder / name, told) for name, told in facts.pop("files").items()}
        step, form = facts.pop("step"), facts.pop("format")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise EngineError(
            f"{path} is absent, truncated or no manifest ({type(error).__name__}: {error})."
        ) from error
    if form != FORMAT:
        raise EngineError(f"{path} is of format {form!r}; this version reads {FORMAT}.")
    state = files.get(OPTIMIZER)
    return Checkpoint(
        step=step,
        weights=load(files[WEIGHTS]),
        optimizer=None
        if state is None
        else torch.load(io.BytesIO(state), map_location="cpu", weights_only=True),
        facts=facts,
    )


def _checked(path: Path, told: Mapping[str, Any]) -> bytes:
    body = path.read_bytes()
    if len(body) != told["bytes"]:
        raise EngineError(f"{path} has {len(body)} bytes, {told['bytes']} were written.")
    if _digest(body) != told["digest"]:
        raise EngineError(f"{path} does not hold what was written (digest differs).")
    return body


def _write(
    target: Path, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any] | None, facts: Mapping[str, Any]
) -> None:
    from safetensors.torch import save

    bodies = {WEIGHTS: save({name: one.detach().cpu().clone().contiguous() for name, one in weights.items()})}
    if optimizer is not None:
        stream = io.BytesIO()
        torch.save(dict(optimizer), stream)
        bodies[OPTIMIZER] = stream.getvalue()
    files = {name: {"bytes": len(body), "digest": _digest(body)} for name, body in bodies.items()}
    manifest = {**facts, "format": FORMAT, "files": files}
    bodies[MANIFEST] = json.dumps(manifest, indent=1, sort_keys=True).encode()
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=target.parent))
    try:
        for name, body in bodies.items():
            _write_through(scratch / name, body)
        _sync_folder(scratch)
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_through(path: Path, body: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(body)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
