"""Node-RED, for comparison: a flow of two nodes that reads a webhook, checks and stores nothing, and answers 200.

Nothing here installs it: `npm install node-red`, and NODE_RED names its executable if it is not on the PATH.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import servers

FLOW = [
    {"id": "tab", "type": "tab", "label": "webhooks"},
    {
        "id": "in", "z": "tab", "type": "http in", "url": "/webhooks/stripe", "method": "post", "upload": False,
        "x": 1, "y": 1, "wires": [["out"]],
    },
    {"id": "out", "z": "tab", "type": "http response", "statusCode": "200", "headers": {}, "x": 2, "y": 1, "wires": []},
]  # fmt: skip
SETTINGS = """module.exports = {
  uiHost: "127.0.0.1", uiPort: %d, httpAdminRoot: false, flowFile: "flows.json", credentialSecret: false,
  telemetry: { enabled: false }, logging: { console: { level: "warn" } },
};
"""


def executable() -> str | None:
    """The path of Node-RED, if it is installed."""
    return os.environ.get("NODE_RED") or shutil.which("node-red")


@contextlib.contextmanager
def serving(folder: str) -> Iterator[int]:
    """Run it; yields its port."""
    home = Path(tempfile.mkdtemp(prefix="node-red-", dir=folder))
    port = servers.free_port()
    (home / "flows.json").write_text(json.dumps(FLOW))
    (home / "settings.js").write_text(SETTINGS % port)
    environ = {**os.environ, "NODE_ENV": "production"}
    with (home / "log").open("wb") as log:
        started = subprocess.Popen([str(executable()), "--userDir", str(home)], env=environ, stdout=log, stderr=log)
        try:
            servers.wait_for_webhooks(port)
            yield port
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(25)
