"""Which layout a lake's tables have: a number in a small file; no file is the first release's, 1."""

import json
import os
import tempfile
from pathlib import Path

from qanchor_plugin.errors import LakeError

LAYOUT = 2
"""What this version writes. 1: release 0.1.0. 2: every table has all columns of ``schemas.py``."""

LAYOUT_FILE = "_layout.json"


def layout_of(folder: Path) -> int:
    """The lake's layout; that of this version where there is no table yet.

    Raises:
        LakeError: the file is there and does not say.
    """
    path = folder / LAYOUT_FILE
    if not path.is_file():
        return 1 if any(folder.glob("*/_delta_log")) else LAYOUT
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["layout"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LakeError(
            f"{path} does not say the lake's layout ({error}); it holds such as "
            f'{{"layout": {LAYOUT}}}. Restore it from a backup.'
        ) from error


def refuse_newer(folder: Path) -> int:
    """The lake's layout, which this version can work on.

    Raises:
        LakeError: a later version of this package wrote the lake; nothing was done.
    """
    layout = layout_of(folder)
    if layout > LAYOUT:
        raise LakeError(
            f"lake {folder} has layout {layout}; this version of feast-qanchor knows layouts 1 to {LAYOUT}. "
            "Nothing was done. Install the version that wrote it, or a newer one."
        )
    return layout


def write_layout(folder: Path, layout: int) -> None:
    """The lake says that it has this layout."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix="._layout", delete=False) as scratch:
            scratch.write(json.dumps({"layout": layout}))
        os.replace(scratch.name, folder / LAYOUT_FILE)
    except OSError as error:
        raise LakeError(
            f"{folder / LAYOUT_FILE} cannot be written ({error}). Mend that and go on."
        ) from error
