"""What goes where: answers to stdout, everything else to stderr."""

import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console


def out() -> Console:
    """A console on stdout, for answers that a person reads."""
    return Console(soft_wrap=False, highlight=False)


def err() -> Console:
    """A console on stderr, for progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def print_json(answer: Any) -> None:
    """The answer stands on stdout as JSON and nothing else does."""
    sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def quiet_libraries() -> None:
    """Feast's note on Spark sources and transformers' weight-loading bars are not shown."""
    if importlib.util.find_spec("pyspark") is not None:
        # Importing it sets feast's own filter, which must stand behind ours.
        import feast.infra.offline_stores.contrib.spark_offline_store.spark_source  # noqa: F401
    warnings.filterwarnings("ignore", message="The spark data source API", category=RuntimeWarning)
    if importlib.util.find_spec("transformers") is not None:
        from transformers.utils import logging

        logging.disable_progress_bar()


@contextmanager
def noise_to_stderr() -> Iterator[None]:
    """Within, whatever writes to stdout (libraries, the JVM) writes to stderr instead."""
    sys.stdout.flush()
    real = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(real, 1)
        os.close(real)


def human_bytes(num_bytes: float) -> str:
    """A size as people read it: 512 B, 1.4 kB, 87.0 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
