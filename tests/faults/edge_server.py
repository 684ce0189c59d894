"""gunicorn's settings and an application for the tests of the web edge: the real worker, a view of a few lines.

Run by the tests as `gunicorn -c python:edge_server edge_server:app`. What a test wants otherwise is in the environment.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

from bridge.server import DEFERRED, Deferred, HttpAnswer, connections
from bridge.server.worker import EdgeWorker

bind = f"127.0.0.1:{os.environ['EDGE_PORT']}"
worker_class = EdgeWorker
workers = 1
threads = int(os.environ.get("EDGE_THREADS", "32"))
worker_connections = int(os.environ.get("EDGE_CONNECTIONS", "512"))
max_requests = int(os.environ.get("EDGE_MAX_REQUESTS", "0"))
keepalive = 5
graceful_timeout = 20
control_socket_disable = True
BIG = b"x" * 8_000_000


def post_worker_init(worker):
    worker.deadline_s = float(os.environ.get("EDGE_DEADLINE_S", "1.0"))
    worker.quick_for = lambda request: quick if request.path.startswith("/quick") else None
    worker.at_stop.append(lambda: time.sleep(float(os.environ.get("EDGE_STOP_S", "0"))))
    deny_threads(int(os.environ.get("EDGE_NO_THREADS", "0")))


def deny_threads(count):
    """The system has no thread to give, so many times."""
    left = [None] * count

    class Denied(threading.Thread):
        def start(self):
            if self.name.startswith("web-") and left:
                left.pop()
                raise RuntimeError("can't start new thread")
            super().start()

    if count:
        connections.threading = SimpleNamespace(Thread=Denied)


def told(text):
    body = text.encode()
    return HttpAnswer("200 OK", (("Content-Length", str(len(body))),), body)


def deferred(words):
    """/quick/later/<seconds until the answer>[/<seconds of patience>]: the answer says which thread made it."""
    after_s, within_s = (float(word) for word in [*words, "2"][:2])
    future = Future()
    timer = threading.Timer(after_s, lambda: future.set_running_or_notify_cancel() and future.set_result(None))
    timer.daemon = True
    timer.start()
    return Deferred(
        future, within_s, lambda done: told("late" if done.cancelled() else threading.current_thread().name)
    )


def quick(request):
    path = request.path
    if path.startswith("/quick/later/"):
        return deferred(path.split("/")[3:])
    if path == "/quick/broken":
        raise ZeroDivisionError("a secret")
    if path == "/quick/unmade":
        future = Future()
        future.set_result(None)
        return Deferred(future, 1.0, lambda _done: 1 / 0)
    return told(f"{len(request.body)} {os.getpid()}")


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/later/broken":
        environ[DEFERRED] = Deferred(Future(), 1.0, lambda _done: told("late"))
        raise ZeroDivisionError("a secret")
    if path.startswith("/later/"):
        environ[DEFERRED] = deferred(path.split("/")[2:])
        return ()
    body = environ["wsgi.input"].read((1 << 20) + 1)
    if path.startswith("/sleep/"):
        time.sleep(float(path.removeprefix("/sleep/")))
    if path == "/fail":
        raise ZeroDivisionError("a secret")
    too_large = len(body) > 1 << 20 or int(environ.get("CONTENT_LENGTH") or 0) > 1 << 20
    status = "413 Content Too Large" if too_large else "200 OK"
    answer = BIG if path == "/big" else f"{len(body)} {os.getpid()}".encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
