"""Source rows as text: the one rendering that jobs and the online path share."""

import re
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

import pyarrow as pa

from qanchor_plugin.identity import TEXT_ID_BYTES, text_id

MAX_TEXT_CHARS = 512
"""Longer texts are cut here: sentence encoders read about 128 word pieces of an event."""

_NO_GROUP = bytes(TEXT_ID_BYTES)
_SPACES = re.compile(r"\s+")


def render_text(template: str, row: Mapping[str, Any]) -> str:
    """One row as text: nulls render as nothing, runs of spaces close up, the end is cut.

    Args:
        template: a format string over columns, checked by ``Modality``.
        row: column values; text values may be ``bytes`` (invalid UTF-8 becomes U+FFFD).
    """
    parts = []
    for literal, name, spec, _ in Formatter().parse(template):
        parts.append(literal)
        if name is not None and row[name] is not None:
            parts.append(_plain(row[name], spec or ""))
    return _SPACES.sub(" ", "".join(parts)).strip()[:MAX_TEXT_CHARS]


def render_group(value: Any) -> str | None:
    """A group's name as text, or None for null and blank values."""
    if value is None:
        return None
    text = _SPACES.sub(" ", _plain(value, "")).strip()[:MAX_TEXT_CHARS]
    return text or None


def render_texts(template: str, table: pa.Table) -> list[str]:
    """Every row of ``table`` as text, in order; distinct rows are rendered once."""
    columns = list(dict.fromkeys(n for _, n, _, _ in Formatter().parse(template) if n is not None))
    seen: dict[tuple[Any, ...], str] = {}
    texts = []
    for values in zip(*(table.column(name).to_pylist() for name in columns), strict=True):
        text = seen.get(values)
        if text is None:
            text = seen[values] = render_text(template, dict(zip(columns, values, strict=True)))
        texts.append(text)
    return texts


def group_ids(names: Sequence[str | None]) -> bytes:
    """The column ``groups`` of one event: 16 bytes a declared key, zeros where it has no name."""
    return b"".join(_NO_GROUP if name is None else text_id(name) for name in names)


def _plain(value: Any, spec: str) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        value = value.encode("utf-8", errors="replace").decode("utf-8")
    return format(value, spec)
