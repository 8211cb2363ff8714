"""Optional dependencies: one extra an edge, and a clear word when it is missing."""

import importlib
from types import ModuleType

from qanchor_plugin.errors import MissingExtraError

EXTRA_OF_MODULE = {
    "torch": "engine",
    "transformers": "engine",
    "sentence_transformers": "engine",
    "safetensors": "engine",
    "pyspark": "spark",
    "delta": "spark",
    "deltalake": "worker",
    "prometheus_client": "worker",
    "pybreaker": "worker",
    "tenacity": "worker",
    "uhashring": "worker",
    "sklearn": "train",
    "matplotlib": "train",
    "accelerate": "train",
    "peft": "train",
    "tensorboard": "train",
}


def require(module: str, *, purpose: str) -> ModuleType:
    """The imported module.

    Args:
        module: dotted module name; its first part must be one of ``EXTRA_OF_MODULE``.
        purpose: what needs it, as the start of the error's sentence.

    Raises:
        MissingExtraError: it is not installed; names the pip command that mends it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.split(".")[0]
        if error.name is not None and error.name.split(".")[0] != root:
            raise
        raise MissingExtraError(
            extra=EXTRA_OF_MODULE.get(root, "all"), module=root, purpose=purpose
        ) from error
