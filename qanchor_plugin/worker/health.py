"""Live, ready and metrics over plain HTTP, for Kubernetes and Prometheus."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST

Reply = tuple[int, str, bytes]


class HealthServer:
    """Answers ``/live``, ``/ready`` and ``/metrics``.

    Args:
        host / port: where; port 0 lets the system choose.
        live: None, or why this process should be killed and started anew.
        ready: None when requests are taken, else the reason why not.
        metrics: the Prometheus text.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        live: Callable[[], str | None],
        ready: Callable[[], str | None],
        metrics: Callable[[], bytes],
    ) -> None:
        pages: dict[str, Callable[[], Reply]] = {
            "/live": lambda: _state("live", live()),
            "/ready": lambda: _state("ready", ready()),
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, metrics()),
        }
        self._server = ThreadingHTTPServer((host, port), _handler(pages))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _state(name: str, reason: str | None) -> Reply:
    body = {name: reason is None, **({} if reason is None else {"reason": reason})}
    return (200 if reason is None else 503), "application/json", json.dumps(body).encode() + b"\n"


def _handler(pages: dict[str, Callable[[], Reply]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # a connection that says nothing does not hold its thread for ever

        def do_GET(self) -> None:
            page = pages.get(self.path.split("?")[0])
            status, kind, body = page() if page else (404, "text/plain", b"/live, /ready, /metrics\n")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes every second are not worth a line each."""

    return Handler
