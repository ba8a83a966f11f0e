"""A web server for models that tests can break: runs in a pod, keeps what is PUT in memory, stdlib only.

GET and PUT of any path; what lies under /denied/ answers 403; counts how often each path was read (GET /?counts).
"""

import json
import signal
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FILES: dict[str, bytes] = {}
READS: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the file."""
        if self.path == "/?counts":
            self._answer(200, json.dumps(READS).encode())
        elif self.path.startswith("/denied/"):
            self._answer(403, b"not for you\n")
        elif self.path in FILES:
            READS[self.path] += 1
            self._answer(200, FILES[self.path])
        else:
            self._answer(404, b"no such file\n")

    def do_PUT(self) -> None:
        """Keep the file."""
        FILES[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # All interfaces of its own pod.
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
