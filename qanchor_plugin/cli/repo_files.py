"""What a repo's python files declare, whether registered or not."""

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qanchor_plugin.cli.repo import Repo
from qanchor_plugin.declare import Declarations
from qanchor_plugin.errors import DeclarationError, QAnchorError


def declared_in_files(here: Repo) -> Declarations:
    """Scenarios and profiles of the anchor views in the repo's files, read as feast apply reads them.

    The process must stand in the repo's folder. Engines are not resolved.

    Raises:
        DeclarationError: a file cannot be imported (names it and its line), or declares amiss.
    """
    from feast.repo_operations import parse_repo

    from qanchor_plugin.feast_ext.declarations import declarations_of

    with _importable(here.path):
        try:
            views = parse_repo(here.path).feature_views
        except QAnchorError:
            raise
        except Exception as error:  # a person's file may raise anything
            raise DeclarationError(_told(error, here.path)) from error
    return declarations_of(here.config.project, views)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Within, the folder's modules can be imported; afterwards none of them stays loaded."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder) and "site-packages" not in Path(file).parts:
                del sys.modules[name]


def _told(error: Exception, folder: Path) -> str:
    frames = [
        one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(str(folder))
    ]
    where = (
        f"{Path(frames[-1].filename).relative_to(folder)}, line {frames[-1].lineno}"
        if frames
        else str(folder)
    )
    return f"{where}: {type(error).__name__}: {error}. Mend the file; feast apply would fail in the same way."
