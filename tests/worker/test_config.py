"""What passes from the supervisor to its processes, and imports that a worker must not need."""

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.worker.auth import Tokens
from qanchor_plugin.worker.config import Limits, WorkerConfig
from qanchor_plugin.worker.logs import JsonLines
from qanchor_plugin.worker.settings import settings_of

SETTINGS = Settings(lake="/lake", clock=datetime(2018, 1, 1, tzinfo=UTC), spark_conf={"a": "b"})


def test_a_config_is_read_back_equal():
    config = WorkerConfig(
        settings=SETTINGS,
        engines=("demo", "other"),
        warm_queries=("Beer?",),
        tokens=("t",),
        limits=Limits(request_rows=7),
    )
    assert WorkerConfig.from_json(config.to_json()) == config
    assert (config.at(5, 6).port, config.at(5, 6).http_port) == (5, 6)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"engines": ()}, "one engine at least"),
        ({"tls_cert": "c"}, "go together"),
        ({"tls_client_ca": "c"}, "needs --tls-cert"),
        ({"batch_tokens": 0}, "1 or more"),
    ],
)
def test_a_config_that_cannot_serve_is_refused(changed, said):
    with pytest.raises(DeclarationError, match=said):
        WorkerConfig(**{"settings": SETTINGS, "engines": ("demo",), **changed})


def test_limits_are_above_nothing():
    with pytest.raises(DeclarationError, match="queue_requests"):
        Limits(queue_requests=0)


def test_tokens_of_a_file(tmp_path):
    with pytest.raises(DeclarationError, match="cannot be read"):
        Tokens(str(tmp_path / "none"))
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n\n")
    with pytest.raises(DeclarationError, match="holds no token"):
        Tokens(str(empty))
    tokens = Tokens("", ["one"])
    assert tokens.accepts("Bearer one")
    assert tokens.accepts(b"bearer one")
    assert not any(tokens.accepts(given) for given in (None, "", "one", "Basic one", "Bearer ", "Bearer ein"))
    assert not Tokens("").required
    assert Tokens("").accepts(None)


def test_a_log_line_is_json_with_what_was_passed_along():
    record = logging.makeLogRecord(
        {"name": "qanchor.worker", "levelname": "INFO", "msg": "answered %d", "args": (3,), "request_id": "r"}
    )
    line = json.loads(JsonLines().format(record))
    assert (line["message"], line["request_id"], line["level"]) == ("answered 3", "r", "info")
    assert "\n" not in JsonLines().format(record)


def test_settings_are_read_without_feast(tmp_path):
    (tmp_path / "feature_store.yaml").write_text("project: x\nqanchor:\n  lake: data/lake\n  engine: demo\n")
    assert settings_of(tmp_path).lake == str(tmp_path / "data/lake")
    with pytest.raises(DeclarationError, match="cannot be read"):
        settings_of(tmp_path / "none")


def test_the_worker_starts_without_feast_and_spark():
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("feast", "pyspark", "delta"):
            raise ModuleNotFoundError(name + " is blocked here", name=name)
sys.meta_path.insert(0, Blocked())
import qanchor_plugin.worker.process, qanchor_plugin.worker.supervisor, qanchor_plugin.worker.__main__
import qanchor_plugin.cli.worker
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
