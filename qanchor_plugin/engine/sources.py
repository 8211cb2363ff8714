"""Where a model's files stand: a folder, a package that carries them, or a name on the hub."""

import importlib.util
from pathlib import Path

from qanchor_plugin.errors import EngineError, MissingExtraError

PACKAGE = "package:"
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/*", "2_Normalize/*"]


def resolve_folder(source: str, *, what: str) -> Path:
    """The local folder of ``source``, fetched from the hub if it is neither a folder nor a package.

    Args:
        source: a folder, ``package:<module>`` (its ``model`` folder), or a hub name.
        what: for messages, such as ``sentence encoder``.

    Raises:
        EngineError: it is nowhere; says what to do.
        MissingExtraError: the package is not installed.
    """
    if source.startswith(PACKAGE):
        return _package_folder(source.removeprefix(PACKAGE), what)
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or source.startswith(".") or source.count("/") > 1:
        raise EngineError(
            f"the {what} folder {source} does not exist. Give an existing folder or a hub name."
        )
    return _from_hub(source, what)


def _package_folder(module: str, what: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtraError(extra="engine", module=module, purpose=f"the {what}")
    folder = Path(spec.origin).parent / "model"
    if not folder.is_dir():
        raise EngineError(f"{folder} is absent: package {module} is incomplete. Install it again.")
    return folder


def _from_hub(name: str, what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EngineError(
            f"the {what} {name!r} is neither a folder nor to be had from the hub "
            f"({type(error).__name__}). Download it once where there is a network and give the folder, "
            "or use engine 'demo', which needs no hub."
        ) from error
