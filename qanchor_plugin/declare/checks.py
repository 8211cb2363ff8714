"""Checks shared by the declared records."""

import re
from collections.abc import Mapping
from typing import Any

from qanchor_plugin.errors import DeclarationError

_SLUG = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def slug_faults(kind: str, name: object) -> list[str]:
    """Why ``name`` cannot be a slug (it feeds SQL identifiers and paths); empty when it can."""
    if isinstance(name, str) and _SLUG.fullmatch(name) and "__" not in name:
        return []
    return [
        f"{kind} name {name!r} is not usable: accepted are a letter, then letters, digits and single"
        " underscores, 64 characters at most. Rename it."
    ]


def raise_faults(faults: list[str]) -> None:
    """Nothing when there is no fault.

    Raises:
        DeclarationError: naming all of them.
    """
    if faults:
        raise DeclarationError(faults)


def reject_unknown_keys(kind: str, given: Mapping[str, Any], accepted: set[str]) -> None:
    """Nothing when every key is known.

    Raises:
        DeclarationError: naming the unknown keys and those accepted.
    """
    unknown = sorted(set(given) - accepted)
    if unknown:
        raise DeclarationError(
            f"{kind} has unknown keys {unknown}; accepted are {sorted(accepted)}. Remove or rename them."
        )
