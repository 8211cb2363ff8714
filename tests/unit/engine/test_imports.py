"""What importing the engine does not bring along."""

import subprocess
import sys

import pytest


def _loaded(statement):
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "from qanchor_plugin.engine.event_vectors import VectorSnapshot",
            {"torch", "transformers", "feast", "pyspark"},
        ),
        (
            "from qanchor_plugin.engine import QueryAnchorEngine as E; E.load('demo', device='cpu')",
            {"feast", "pyspark", "sentence_transformers"},
        ),
    ],
)
def test_engine_imports(statement, absent):
    assert not _loaded(statement) & absent
