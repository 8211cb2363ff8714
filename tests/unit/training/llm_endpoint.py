"""A real HTTP server on this machine that answers as an LLM endpoint would, from a script."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Endpoint(ThreadingHTTPServer):
    """Answers from a list of (status, content, seconds of delay); the last one for ever."""

    def __init__(self, *script: tuple[int, str, float]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.seen, self.at = list(script), [], []
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> "Endpoint":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, self.headers.get("Authorization"), body))
            self.server.at.append(time.monotonic())
            script = self.server.script
            status, content, delay = script.pop(0) if len(script) > 1 else script[0]
        time.sleep(delay)
        answer = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(answer)
        except ConnectionError:
            self.close_connection = True  # the client gave up waiting

    def log_message(self, *_: object) -> None:
        """Silent."""
