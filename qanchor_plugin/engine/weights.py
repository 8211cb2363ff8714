"""Weights on disk (safetensors only; nothing is unpickled), and their digest."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import EngineError
from qanchor_plugin.extras import require
from qanchor_plugin.identity import digest

Arrays = dict[str, npt.NDArray[Any]]


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """``path`` holds the tensors; it appears whole or not at all."""
    numpy_files = require("safetensors.numpy", purpose="saving weights")
    body = numpy_files.save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, delete=False) as scratch:
        scratch.write(body)
    os.replace(scratch.name, path)


def read_tensors(path: Path, names: set[str] | None = None) -> Arrays:
    """The tensors in ``path``.

    Args:
        path: a safetensors file.
        names: exactly these must be there; None takes what there is.

    Raises:
        EngineError: the file is absent, truncated or no safetensors, or names differ.
    """
    numpy_files = require("safetensors.numpy", purpose="loading weights")
    from safetensors import SafetensorError

    try:
        tensors: Arrays = numpy_files.load(path.read_bytes())
    except FileNotFoundError as error:
        raise EngineError(f"{path} is absent. Copy the folder again, whole.") from error
    except (OSError, SafetensorError) as error:
        raise EngineError(
            f"{path} is truncated or no safetensors file ({error}). Copy or save it again."
        ) from error
    if names is not None and set(tensors) != names:
        odd = sorted(set(tensors) ^ names)[:5]
        raise EngineError(
            f"{path} does not fit the config: tensors {odd} are missing or unexpected. It belongs to another "
            "architecture; use the config.json it was saved with."
        )
    return tensors


def state_digest(state: Mapping[str, Any]) -> str:
    """Identity of a torch state dict: names, types, shapes and bytes."""
    import torch

    parts: list[Any] = []
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        parts += [name, str(tensor.dtype), list(tensor.shape)]
        parts.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest("weights", *parts)
