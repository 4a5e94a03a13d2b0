"""A real HTTP/1.1 server in a thread, reached through a local socket file, with faults to order.

The suite lets no process open a network socket; local ones stay open. `through` makes http.client connect to the
server's socket file whatever host it is asked for (https without TLS), so that everything above the connection is real.
"""

from __future__ import annotations

import http.client
import http.server
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PIECE = 1 << 14


@dataclass
class Served:
    """One file and what goes wrong with it. Lists are used up, one entry per request; None: nothing special.

    ``cut``: bytes of the body after which the connection is closed. ``status``: answers instead of the file.
    ``wait``: called before each piece of the body with the number of its bytes sent so far.
    """

    body: bytes
    etag: str | None = '"v1"'
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    heeds_if_range: bool = True
    chunked: bool = False
    length: int | None = None  # what Content-Length says, where it lies
    content_range: str | None = None  # what Content-Range says, where it lies
    cut: list[int | None] = field(default_factory=list)
    status: list[int | None] = field(default_factory=list)
    redirect: str | None = None
    wait: Callable[[int], None] | None = None


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """``files`` by path; ``asked``: (path, headers) of every request so far."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or gave up is part of the tests."""

    @property
    def ranges_asked(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.asked]

    @property
    def times_asked(self) -> Counter[str]:
        return Counter(path for path, _ in self.asked)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        asked = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((path, asked))
        self.close_connection = True
        served = self.server.files.get(path)
        status = served.status.pop(0) if served is not None and served.status else None
        if served is None or status is not None:
            self.send_error(status or 404)
            return
        if served.redirect is not None:
            self.send_response(302)
            self.send_header("Location", served.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(served, asked)

    def _send(self, served: Served, asked: dict[str, str]) -> None:
        start, body = 0, served.body
        same = not served.heeds_if_range or asked.get("if-range") in (None, served.etag)
        if "range" in asked and served.ranges and same:
            start = int(asked["range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            end = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send_header("Content-Range", served.content_range or end)
        if served.etag is not None:
            self.send_header("ETag", served.etag)
        for name, value in served.headers.items():
            self.send_header(name, value)
        if served.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(served.length or len(body) - start))
        self.end_headers()
        cut = served.cut.pop(0) if served.cut else None
        stop = len(body) if cut is None else min(start + cut, len(body))
        for place in range(start, stop, PIECE):
            if served.wait is not None:
                served.wait(place - start)
            piece = body[place : min(place + PIECE, stop)]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if served.chunked else piece)
        if served.chunked and cut is None:
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def serving(path: Path) -> Iterator[Server]:
    """A running server behind the socket file ``path`` (at most some 100 characters)."""
    with Server(path) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def through(path: Path) -> Callable[[http.client.HTTPConnection], None]:
    """A `connect` for http.client that goes to the socket file."""

    def connect(self: http.client.HTTPConnection) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(path))

    return connect
