"""A TCP relay in front of PostgreSQL that misbehaves as poolers, proxies and networks do.

It can stand `still` and go on later, fall silent on connections for good (they stay open, but nothing is ever delivered
on them again), and lead new connections elsewhere, like an address that moves to another server.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Target = Path | tuple[str, int]  # a server's socket file, or its address


class _Pair:
    """A client's connection and its other half. silent: for good. opening: the first words heard on it, if any."""

    def __init__(self, client: socket.socket, upstream: socket.socket) -> None:
        self.ends = (client, upstream)
        self.silent = False
        self.opening: bytes | None = None
        self.over = False


class Relay:
    """Listens on loopback, on `port`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.last_words: bytes | None = None  # the next connection that says this falls silent for good
        self.first_words = b""  # if it has said this before
        self.heard = True  # whether its last words are handed on
        self._moving = threading.Event()
        self._moving.set()
        self._pairs: list[_Pair] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Inside the block, accept connections and bytes, but hand none on; they are delivered afterwards."""
        self._moving.clear()
        yield
        self._moving.set()

    def silence(self, share: float = 1.0, rng: random.Random | None = None) -> int:
        """Make this share of the open connections silent for good; return how many those are."""
        chosen = [pair for pair in self._pairs if not (pair.over or pair.silent)]
        if share < 1.0:
            chosen = (rng or random.Random(1)).sample(chosen, max(1, round(len(chosen) * share)))
        for pair in chosen:
            pair.silent = True
        return len(chosen)

    def close(self) -> None:
        """End all connections and all threads."""
        self._moving.set()
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _start(self, work: Callable[..., None], *given: object) -> None:
        thread = threading.Thread(target=work, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        self._moving.wait()
        upstream = socket.socket(socket.AF_UNIX if isinstance(self.target, Path) else socket.AF_INET)
        self._sockets.append(upstream)
        try:
            upstream.connect(str(self.target) if isinstance(self.target, Path) else self.target)
        except OSError:
            client.close()
            return
        pair = _Pair(client, upstream)
        self._pairs.append(pair)
        self._start(self._hand_on, pair, client, upstream)
        self._start(self._hand_on, pair, upstream, client)

    def _hand_on(self, pair: _Pair, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._moving.wait()
                if pair.silent:
                    continue
                if self.first_words in data:
                    pair.opening = self.first_words
                if self.last_words is not None and self.last_words in data and pair.opening == self.first_words:
                    pair.silent, self.last_words = True, None
                    if not self.heard:
                        continue
                sink.sendall(data)
        if pair.silent:
            return  # the other end does not hear of the end either
        pair.over = True
        for end in pair.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
