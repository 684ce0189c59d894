"""The providers' own Node libraries, asked through one process of node/oracles.mjs: a line of JSON there, one back."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from oracles import ROOT

if TYPE_CHECKING:
    from bridge.model import Request

FOLDER: Final = ROOT / "oracles/node"


@dataclass
class Node:
    """One process, started with the first question. Its clock stands still at `now_s`."""

    now_s: int

    @cached_property
    def _process(self) -> subprocess.Popen[str]:
        node = shutil.which("node")
        if node is None:
            raise SystemExit("Node 20 or newer is missing: `apt-get install nodejs npm`")
        command = [node, "oracles.mjs", str(self.now_s)]
        return subprocess.Popen(command, cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, library: str, ask: str, request: Request, secret: str) -> Any:
        question = {
            "library": library,
            "ask": ask,
            "method": request.method,
            "url": request.url,
            "headers": dict(request.headers),
            "body": base64.b64encode(request.body).decode(),
            "secret": secret,
        }
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(question), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit(f"oracles/node/oracles.mjs ended while it was asked about {library} (its error is above)")
        return json.loads(answer)

    def close(self) -> None:
        if "_process" in self.__dict__:
            self._process.communicate()


@dataclass(frozen=True, slots=True)
class Library:
    """The same face as a Python library."""

    package: str
    name: str
    node: Node = field(repr=False)
    can_sign: bool = False

    @property
    def against(self) -> str:
        manifest = json.loads((FOLDER / "node_modules" / self.package / "package.json").read_text())
        return f"{self.package}@{manifest['version']}"

    def accepts(self, request: Request, secret: str) -> bool:
        return bool(self.node.ask(self.name, "verify", request, secret))

    @property
    def sign(self) -> Any:
        return (lambda request, secret, _: self.node.ask(self.name, "sign", request, secret)) if self.can_sign else None


def libraries(node: Node) -> dict[str, Library]:
    """Name → library, as in LIBRARIES of oracles.mjs."""
    return {
        "clerk": Library("@clerk/backend", "clerk", node),
        "shopify": Library("@shopify/shopify-api", "shopify", node),
        "creem": Library("creem", "creem", node),
        "octokit": Library("@octokit/webhooks-methods", "octokit", node, can_sign=True),
        "linear": Library("@linear/sdk", "linear", node),
        "notion": Library("@notionhq/client", "notion", node, can_sign=True),
    }
