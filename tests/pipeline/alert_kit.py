"""Stand-ins for what apprise sends to: a server of a chat's webhooks, and one of mail."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Chat(ThreadingHTTPServer):
    """Keeps what it is sent. status: its answer; hangs: it never gives one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ChatRequest)
        self.messages: list[dict] = []
        self.status, self.hangs = 200, False

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server_port}/token-that-must-not-be-told"


class _ChatRequest(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.messages.append(json.loads(body))
        while self.server.hangs:
            time.sleep(0.05)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Nothing."""


class Mail(socketserver.ThreadingTCPServer):
    """SMTP without anything that a test does not need. Keeps the mails it is sent."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailSession)
        self.mails: list[str] = []

    @property
    def url(self) -> str:
        port = self.server_address[1]
        where = f"127.0.0.1:{port}?smtp=127.0.0.1&mode=insecure&from=bridge@example.com&to=me@example.com"
        return f"mailto://somebody:password-that-must-not-be-told@{where}"


class _MailSession(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            if word == "EHLO":
                self._say("250-here\r\n250 AUTH PLAIN LOGIN")
            elif word == "AUTH":
                self._say("235 welcome")
            elif word == "DATA":
                self._say("354 go on")
                lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                self.server.mails.append("\n".join(lines))
                self._say("250 taken")
            elif word == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 fine")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        if isinstance(server, Chat):
            server.hangs = False
        server.shutdown()
        server.server_close()
        thread.join(10)
