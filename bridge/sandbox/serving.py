"""A small HTTP/1.1 server that can break every rule of good service on request: drop, reset, cut, drip and hang.

It serves one application with one thread per connection, keeps connections open, and logs nothing.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flask import Flask

    from bridge.sandbox.faults import Fault
    from bridge.sandbox.world import World

_BODY_MAX: Final = 1024 * 1024
_PAGE: Final = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
_REASONS: Final = BaseHTTPRequestHandler.responses


class _Payload:
    """The application's answer, ready to be sent well or badly."""

    def __init__(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = [(name, value) for name, value in headers if name.lower() not in ("content-length", "date")]
        self.body = body

    def head(self, now_ms: int, *, keep: bool) -> bytes:
        reason = _REASONS.get(self.status, ("Unknown", ""))[0]
        lines = [f"HTTP/1.1 {self.status} {reason}", f"Date: {formatdate(now_ms / 1000, usegmt=True)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"Content-Length: {len(self.body)}", f"Connection: {'keep-alive' if keep else 'close'}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with kept connections and no log, able to break every rule of good service on request."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    rbufsize = 64 * 1024
    server: Server

    def _run(self) -> None:
        world = self.server.world
        path = urlsplit(self.path).path
        body = self._read()
        if body is None:
            return
        fault = world.faults.take(path[7:], world.options) if path.startswith("/api/v1/") else None
        carried_out = fault is None or fault.carried_out
        answer = self._ask(body) if carried_out else _Payload(200, [("Content-Type", "application/json")], b"{}")
        if fault is not None:
            answer = _spoiled(answer, fault)
        if path.startswith("/api/v1/"):
            self._note(path, answer, fault)
        if self.command == "HEAD":
            answer.body = b""
        self._send(answer, fault)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = do_OPTIONS = _run  # noqa: N815 - names of http.server

    def _read(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        sized = length.isascii() and length.isdigit() and len(length) < 12 and "Transfer-Encoding" not in self.headers
        if sized and int(length) <= _BODY_MAX:
            return self.rfile.read(int(length))
        self.close_connection = True
        sentence = b"send a Content-Length of at most 1 MiB\n"
        self._send(_Payload(413 if sized else 411, [("Content-Type", "text/plain")], sentence), None)
        return None

    def _ask(self, body: bytes) -> _Payload:
        started: dict[str, Any] = {}

        def start_response(status: str, headers: Sequence[tuple[str, str]], _: Any = None) -> Callable[[bytes], Any]:
            started.update(status=int(status.split(" ", 1)[0]), headers=headers)
            return lambda _: None

        pieces: Iterable[bytes] = self.server.app(self._environ(body), start_response)
        try:
            payload = b"".join(pieces)
        finally:
            getattr(pieces, "close", lambda: None)()
        return _Payload(started["status"], started["headers"], payload)

    def _environ(self, body: bytes) -> dict[str, Any]:
        url = urlsplit(self.path)
        host, port = self.server.server_address[:2]
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(url.path, "latin-1"),
            "QUERY_STRING": url.query,
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in self.headers.items():
            if "_" not in name:
                environ.setdefault("HTTP_" + name.upper().replace("-", "_"), value)
        return environ

    def _note(self, path: str, answer: _Payload, fault: Fault | None) -> None:
        world = self.server.world
        row = {"at_ms": world.now_ms(), "method": self.command, "path": path, "status": answer.status}
        world.note_request(row | {"fault": fault.kind if fault else None})

    # ------------------------------------------------------------------------------------------------------ sending

    def _send(self, answer: _Payload, fault: Fault | None) -> None:
        end = fault.end if fault else "answer"
        if end != "answer":
            self.close_connection = True
        keep = not self.close_connection
        head = answer.head(self.server.world.now_ms(), keep=keep)
        match end:
            case "answer":
                self.connection.sendall(head + answer.body)
            case "cut":
                self.connection.sendall(head + answer.body[: len(answer.body) // 2])
            case "drip":
                self._drip(head + answer.body, (fault.drip_ms if fault else 0) / 1000)
            case "hang":
                self._wait((fault.hang_ms if fault else 0) / 1000)
            case "reset":
                self._reset()

    def _drip(self, answer: bytes, pause_s: float) -> None:
        for place in range(len(answer)):
            self.connection.sendall(answer[place : place + 1])
            if self._wait(pause_s):
                return

    def _wait(self, timeout_s: float) -> bool:
        """Wait, but no longer than the client does; True if the client is gone."""
        readable, _, _ = select.select([self.connection], [], [], timeout_s)
        return bool(readable)

    def _reset(self) -> None:
        """Close with RST instead of FIN, as a crashed machine or a load balancer does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client is gone: there is nobody to tell

    def log_message(self, *_: Any) -> None:
        """Log nothing: the page and `/__fake__/requests` say it better."""


def _spoiled(answer: _Payload, fault: Fault) -> _Payload:
    """The answer, with status and body replaced by those of the fault."""
    if fault.status is None:
        return answer
    message = f"asked for: {fault.kind}"
    if fault.body == "html":
        location = [("Location", "/login")] if 300 <= fault.status < 400 else []
        return _Payload(fault.status, [("Content-Type", "text/html; charset=utf-8"), *location], _PAGE)
    bodies = {
        "empty": b"",
        "text": f'{{"error":"{message}"}}'.encode(),
        "envelope": f'{{"status":"error","error":{{"code":{fault.status},"message":"{message}"}}}}'.encode(),
    }
    retry_after = [("Retry-After", str(fault.retry_after_s))] if fault.retry_after_s else []
    return _Payload(fault.status, [("Content-Type", "application/json"), *retry_after], bodies[fault.body])


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, host: str, port: int, app: Flask) -> None:
        self.app = app
        self.world: World = app.extensions["sandbox"]
        self._open: set[Any] = set()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # http.server resolves a name of the host, which may take seconds and is of no use here.
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
