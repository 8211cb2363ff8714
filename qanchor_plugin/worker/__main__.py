"""One process of a supervised worker: its config is the first line of stdin; it ends when stdin does."""

import os
import sys
import threading
from typing import Any

from qanchor_plugin.worker.config import WorkerConfig
from qanchor_plugin.worker.logs import count_alone, log_as_json


def main() -> None:
    """The process has served until a signal, or until its supervisor was gone."""
    count_alone()
    from qanchor_plugin.worker.process import WorkerProcess, announce_json

    log_as_json()
    config = WorkerConfig.from_json(sys.stdin.readline())
    process = WorkerProcess(config, announce_json)
    threading.Thread(target=_watch_supervisor, args=(process,), name="stdin", daemon=True).start()
    code = process.run()
    sys.stdout.flush()
    os._exit(code)  # torch and gRPC threads of abandoned streams must not hold the exit


def _watch_supervisor(process: Any) -> None:
    sys.stdin.read()
    process.stop()


if __name__ == "__main__":
    main()
