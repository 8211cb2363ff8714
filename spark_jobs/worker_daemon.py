"""PySpark's worker daemon with heavy libraries already imported: workers fork from it and share them.

A Python worker imports torch and sentence-transformers in seconds; the daemon does so once, and forked
workers start at once and hold one copy of the code. What was imported is frozen: PySpark collects garbage
after every task, and would walk half a million objects each time (record 0004). What cannot be imported is
left out, with a word in the log: whoever needs it says so. Nothing here touches a device, so that a fork may
open one.
"""

import contextlib
import gc
import importlib
import sys

from pyspark.daemon import manager

PRELOADED = ("pandas", "torch", "sentence_transformers")


def preload() -> None:
    """The libraries are imported; what they print goes to stderr, for stdout tells the JVM our port."""
    with contextlib.redirect_stdout(sys.stderr):
        for name in PRELOADED:
            try:
                importlib.import_module(name)
            except (ImportError, OSError) as error:
                print(f"worker daemon: {name} is not preloaded: {error}")


if __name__ == "__main__":
    preload()
    gc.freeze()
    manager()
