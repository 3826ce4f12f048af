"""A web server that answers what a test wants, where ComfyUI itself would never: for what the trainer's client makes of it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

POLL_S = 0.02
"""How long it takes at most to end; Python's own is half a second for each test."""


class Answers(http.server.BaseHTTPRequestHandler):
    """A handler that is quiet, and sends JSON or bytes."""

    def answer(self, value: Any) -> None:
        """Send bytes as they are, anything else as JSON."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def running(handler: type[Answers]) -> Iterator[str]:
    """Context in which such a server runs; gives its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
