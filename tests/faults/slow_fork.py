"""gunicorn's settings of the product, on a machine so busy that a worker takes its time after the fork."""

from __future__ import annotations

import time

from bridge.server.gunicorn_conf import *  # noqa: F403 - gunicorn reads all names of the module


def post_fork(server, worker):
    time.sleep(1.5)
