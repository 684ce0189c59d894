"""A real pgbouncer in front of a PostgreSQL that is reached by TCP."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chaos.family import answers, free_port, wait

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
_CONFIG = """
[databases]
* = user={user} host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
{more}
"""


@contextlib.contextmanager
def pgbouncer(server_port: int, user: str, mode: str, size: int = 4, more: str = "") -> Iterator[int]:
    """Run pgbouncer inside the block, with nothing set but what it needs; yields the port on which it listens.

    user: its user at the server. mode: `transaction` or `session`.
    """
    folder = Path(tempfile.mkdtemp(prefix="pooler-"))
    folder.chmod(0o755)
    port = free_port()
    config = folder / "pgbouncer.ini"
    values = {"server_port": server_port, "user": user, "port": port, "mode": mode, "size": size, "more": more}
    config.write_text(_CONFIG.format(**values))
    command = [PROGRAM or "pgbouncer", str(config)]
    if os.geteuid() == 0:  # it refuses to run as root
        command[1:1] = ["-u", "nobody"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait(lambda: answers(port), 20, f"pgbouncer listens ({(folder / 'log').read_text()})")
        yield port
    finally:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        shutil.rmtree(folder)
