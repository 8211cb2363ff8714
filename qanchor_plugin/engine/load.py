"""Engines from presets and folders, and folders from engines (safetensors only)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from qanchor_plugin.engine.config import EngineConfig
from qanchor_plugin.engine.decoder import KINDS, supported
from qanchor_plugin.engine.modules import EngineModules
from qanchor_plugin.engine.sources import resolve_folder
from qanchor_plugin.engine.weights import read_tensors, write_tensors
from qanchor_plugin.errors import EngineError

CONFIG = "config.json"
WEIGHTS = "engine.safetensors"
BACKBONE, ENCODER = "backbone", "encoder"
MEANING_SPACE = Path(__file__).parent / "presets" / "demo" / "meaning_space.safetensors"
SHIPPED = {"demo": MEANING_SPACE.with_name(WEIGHTS)}
"""Presets whose trained weights are in the package (see docs/model-card.md)."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.float32}
"""Types of the weights; ``int8`` is made of float32 ones when they are first multiplied."""


def resolve_device(device: str) -> torch.device:
    """``auto`` is cuda when it is there.

    Raises:
        EngineError: cuda is asked for and absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError("device is 'cuda', but torch sees none. Use device 'auto' or 'cpu'.")
    return torch.device(device)


def resolve_dtype(config: EngineConfig, device: torch.device) -> torch.dtype:
    """The compute type; ``auto`` is bfloat16 on cuda, float32 elsewhere."""
    if config.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[config.dtype]


def load_language_model(source: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A transformers causal LM and its tokenizer, from a hub name or a folder.

    Raises:
        EngineError: absent, incomplete or truncated; names the folder.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_folder(source, what="backbone")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise EngineError(
            f"the backbone in {folder} cannot be loaded: {error}. Copy the folder again, whole."
        ) from error
    return model.eval(), tokenizer


def read_meaning_space(modules: EngineModules) -> None:
    """Fills the fixed projection of the demo preset from the file in the package."""
    tensors = read_tensors(MEANING_SPACE, {"text_mean", "query_mean", "basis"})
    space = modules.space
    if space is None or tensors["basis"].shape != space.shape:
        raise EngineError(
            f"{MEANING_SPACE} holds a basis of shape {tensors['basis'].shape}, which does not fit the "
            "config. Write it again: python -m qanchor_plugin.engine.fit_meaning."
        )
    if space.query_basis is not None:  # until it is fitted, queries are mapped as texts are
        tensors["query_basis"] = tensors["basis"]
    space.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})


def read_config(folder: Path) -> EngineConfig:
    """The config in an engine's folder.

    Raises:
        EngineError: the folder or file is absent or unreadable.
    """
    if not folder.is_dir():
        raise EngineError(f"engine folder {folder} does not exist. Give a preset or a saved engine's folder.")
    path = folder / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read ({error}). The folder is no saved engine; use one written by "
            "QueryAnchorEngine.save_pretrained."
        ) from error
    try:
        return EngineConfig.from_json(text)
    except EngineError as error:
        raise EngineError(f"{path}: {error}") from error


def read_own_state(modules: EngineModules, path: Path) -> None:
    """Fills every own weight from a safetensors file.

    Raises:
        EngineError: the file is absent, truncated, or of another architecture.
    """
    expected = modules.own_state()
    tensors = read_tensors(path, set(expected))
    for name, value in tensors.items():
        if tuple(value.shape) != tuple(expected[name].shape):
            raise EngineError(
                f"{path}: tensor {name} has shape {value.shape}, the config wants "
                f"{tuple(expected[name].shape)}. It belongs to another architecture; "
                "use the config.json it was saved with."
            )
    with torch.no_grad():
        for name, value in tensors.items():
            expected[name].copy_(torch.from_numpy(value))


def write_own_state(modules: EngineModules, path: Path) -> None:
    """The own weights as float32 safetensors."""
    state = {name: value.detach().cpu().numpy() for name, value in modules.own_state().items()}
    write_tensors(path, {name: np.asarray(value, np.float32) for name, value in state.items()})


def assembled(config: EngineConfig, model: Any, device: torch.device) -> EngineModules:
    """The modules around a model; own weights are not set yet."""
    if config.backbone == "hf":
        if model is None:
            raise EngineError("an engine of backbone 'hf' needs a model. Use QueryAnchorEngine.load.")
        width = model.config.hidden_size
        if width != config.hidden:
            raise EngineError(f"the backbone is {width} wide, the config says {config.hidden}. Set 'hidden'.")
        model = model.to(device, resolve_dtype(config, device))
        if config.dtype == "int8" and not (supported(model) and device.type == "cpu"):
            raise EngineError(
                f"dtype is 'int8', but a {model.config.model_type} on {device} is not run in int8: only "
                f"{', '.join(KINDS)} on a CPU are. Set dtype 'bfloat16' or 'float32'."
            )
    return EngineModules(config, model)


def placed(modules: EngineModules, device: torch.device) -> EngineModules:
    """The modules on the device, the backbone in its compute type; all else stays float32."""
    modules.backbone.to(resolve_dtype(modules.config, device))
    return modules.to(device)


def inside(folder: Path, source: str) -> str:
    """A source that a saved engine names relative to its own folder, as a path; others as they are."""
    return str(folder / source) if source.startswith("./") else source
