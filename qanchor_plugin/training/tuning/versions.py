"""Tuned prompts on disk: one folder a version, never written over, so that going back is naming another."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qanchor_plugin.engine.weights import write_tensors
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.training.tuning.tune import TunedPrompt

PROTOTYPES = "prototypes.safetensors"
RECORD = "tuning.json"


def versions(folder: Path) -> list[int]:
    """Numbers of the versions in ``folder``, ascending."""
    if not folder.is_dir():
        return []
    names = [one.name for one in folder.iterdir() if one.is_dir()]
    return sorted(int(name[1:]) for name in names if name.startswith("v") and name[1:].isdecimal())


def write_version(folder: Path, tuned: TunedPrompt, record: Mapping[str, Any]) -> Path:
    """``folder``/vN, N one above the highest, holds prompt, prototypes and ``tuning.json``; it appears whole.

    Args:
        folder: the scenario's.
        tuned: what was found.
        record: what else is to be known of it.

    Raises:
        InputDataError: it cannot be written.
    """
    number = (versions(folder) or [0])[-1] + 1
    target = folder / f"v{number}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=f".v{number}-"))
        try:
            _fill(scratch, tuned, {"version": f"v{number}", **record})
            scratch.chmod(0o755)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise InputDataError(
            f"the tuned prompt cannot be written to {target}: {error}. Give another --output, or make room."
        ) from error
    return target


def _fill(folder: Path, tuned: TunedPrompt, record: Mapping[str, Any]) -> None:
    tuned.soft_prompt.save(folder)
    write_tensors(folder / PROTOTYPES, {"prototypes": tuned.prototypes})
    found = {
        "soft_prompt_digest": tuned.soft_prompt.digest,
        "engine_digest": tuned.soft_prompt.engine_digest,
        "num_rows": tuned.num_rows,
        "num_held_out": tuned.num_held_out,
        "best_step": tuned.best_step,
        "losses": list(tuned.losses),
        "held_out_losses": [list(one) for one in tuned.held_out_losses],
    }
    (folder / RECORD).write_text(json.dumps({**record, **found}, indent=2), encoding="utf-8")
