"""How a caller reaches an engine; importing this loads neither torch nor deltalake."""

from qanchor_plugin.backend.choose import backend_of
from qanchor_plugin.backend.lake_reader import LakeReader
from qanchor_plugin.backend.local import LocalBackend
from qanchor_plugin.backend.protocol import Answer, Ask, Backend

__all__ = ["Answer", "Ask", "Backend", "LakeReader", "LocalBackend", "backend_of"]
