"""Stub workers as processes of their own, and a TCP server that accepts and never answers."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qanchor_plugin.backend import Ask
from tests.shop import PROFILE
from tests.stub_worker import ENGINE_DIGEST

QUERY = "Will this household buy wine?"


def asks(*queries: str) -> list[Ask]:
    """Queries that nobody registered, to the stub's engine."""
    return [Ask(profile=PROFILE, query=one, engine="stub", engine_digest=ENGINE_DIGEST) for one in queries]


@dataclass
class StubProcess:
    """A started stub worker."""

    process: subprocess.Popen[str]
    port: int

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """It is gone."""
        self.process.kill()
        self.process.wait(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()


def start_stub(*, mode: str = "ok", seconds: float = 0.0, slots: int = 1000, port: int = 0) -> StubProcess:
    """A stub worker that listens."""
    command = [sys.executable, "-m", "tests.stub_worker", "--mode", mode, "--port", str(port)]
    command += ["--seconds", str(seconds), "--slots", str(slots)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return StubProcess(process, int(process.stdout.readline()))


@contextmanager
def silent_server(says: bytes = b"") -> Iterator[str]:
    """The address of a TCP server that accepts, says this, and never answers."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                if says:
                    connection.sendall(says)
                held.append(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)
    for connection in held:
        connection.close()
