"""The ``qanchor:`` section of feature_store.yaml, read without feast."""

import os
from pathlib import Path

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import DeclarationError

STORE_FILE = "feature_store.yaml"


def settings_of(repo: Path) -> Settings:
    """The settings of a feature repo.

    Raises:
        DeclarationError: no such file, not YAML, or the section is absent or unusable.
    """
    import yaml

    file = repo / STORE_FILE
    try:
        body = yaml.safe_load(os.path.expandvars(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise DeclarationError(f"{file} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise DeclarationError(f"{file} is not YAML: {error}") from error
    section = body.get("qanchor") if isinstance(body, dict) else None
    return Settings.from_mapping(section, repo_path=repo)
