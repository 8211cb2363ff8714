"""A worker in a process of its own, and who asks it: for benchmarks."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.flight as flight

from qanchor_plugin.backend import Ask, wire


@dataclass(frozen=True)
class Worker:
    """Where it listens, and its process."""

    address: str
    pid: int


class Caller:
    """A connection; its calls raise what the worker raised."""

    def __init__(self, address: str) -> None:
        self._client = flight.FlightClient(address)

    def embed(self, asks: Sequence[Ask], batch: Any, cutoffs: Sequence[int], **given: Any) -> None:
        """The answers came and are sound."""
        header = wire.Header(asks=tuple(asks), deadline_ms=600_000, request_id="bench", **given)
        descriptor = flight.FlightDescriptor.for_command(header.to_bytes())
        writer, reader = self._client.do_exchange(descriptor)
        with writer:
            writer.begin(batch.schema)
            writer.write_batch(batch)
            writer.done_writing()
            wire.read_answers(wire.messages(reader), asked=asks, cutoffs=cutoffs)


@contextmanager
def running(lake: Path, engine: str, asks: Sequence[Ask]) -> Iterator[Worker]:
    """A worker over the lake; it has ended afterwards."""
    queries = [part for ask in asks for part in ("--warm-query", ask.query)]
    command = [sys.executable, "-m", "qanchor_plugin.cli.main", "worker", "--json", "--device", "cpu"]
    command += ["--lake", str(lake), "--engine", engine, "--listen", "127.0.0.1:0", *queries]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            address = ""
            for line in process.stdout:
                event = json.loads(line)
                address = event.get("address", address)
                if event["event"] == "ready":
                    break
            else:
                log.seek(0)
                raise SystemExit(f"the worker did not start:\n{log.read().decode()[-3000:]}")
            yield Worker(address, process.pid)
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()
