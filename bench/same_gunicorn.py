"""The bridge's gunicorn settings for the constant view: the same worker, threads and limits, without the bridge."""

from bridge.server.gunicorn_conf import *  # noqa: F403


def post_worker_init(worker: object) -> None:  # type: ignore[no-redef]
    """Build nothing."""
