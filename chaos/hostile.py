"""Requests that nobody should accept, and bytes that are not requests: made from good ones by a seed, one fault each.

- `forged`: whole requests whose signature does not fit.
- `malformed`: authentic bytes that are not a document, and requests that no provider sends.
- `raw_requests`: bytes on a socket that are not a request.

All but the last go through the real application in this process, which makes a million of them possible.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge import app, store, web
from bridge import settings as table
from bridge.sandbox import sign
from chaos.plan import KEY, SECRET
from chaos.silence import silence

ROOT = Path(__file__).resolve().parent.parent
SECRETS = {
    "STRIPE_WEBHOOK_SECRET": SECRET,
    "LEMONSQUEEZY_WEBHOOK_SECRET": "a-secret-typed-by-a-person",
    "GENERIC_WEBHOOK_SECRET": "whsec_Y2hhb3MtY2hhb3MtY2hhb3MtY2hhb3M=",
}
TIMED = ("stripe", "generic")
RUBBISH = "\x00\x01\xff\xfe\x7f,;=.v1 t\"'\\ \t%é€"


@dataclass
class Asked:
    """One request, as WSGI sees it."""

    source: str
    body: bytes
    headers: dict[str, str]
    method: str = "POST"
    path: str | None = None
    query: str = ""
    now_s: int = 0  # when it was signed
    environ: dict[str, Any] = field(default_factory=dict)


def document(rng: random.Random) -> bytes:
    """An event that could be any of the three sources'."""
    number = rng.getrandbits(40)
    thing = {"id": f"obj_{number}", "amount": rng.randrange(10_000), "note": "ü" * rng.randrange(5)}
    event = {
        "id": f"evt_{number}", "type": "invoice.finalized", "created": int(time.time()), "livemode": True,
        "meta": {"event_name": "order_created", "webhook_id": str(number)},
        "data": {"id": str(number), "object": thing},
    }  # fmt: skip
    return json.dumps(event, ensure_ascii=rng.random() < 0.5).encode()


def signed(source: str, body: bytes, *, now_s: int, secret: str | None = None, id: str = "msg_1") -> dict[str, str]:  # noqa: A002
    """The headers that make a body authentic for a source."""
    key = SECRETS[f"{source.upper()}_WEBHOOK_SECRET"] if secret is None else secret
    if source == "stripe":
        return sign.stripe(body, key, now_s)
    if source == "lemonsqueezy":
        return sign.lemonsqueezy(body, key, "order_created")
    return sign.standard_webhooks(body, key, id, now_s)


# -------------------------------------------------------------------------------------------------------- forgeries


def forged(rng: random.Random) -> Asked:
    """A good request with one fault that its signature cannot survive."""
    source = rng.choice(("stripe", "lemonsqueezy", "generic"))
    body, now_s = document(rng), int(time.time())
    asked = Asked(source, body, signed(source, body, now_s=now_s), now_s=now_s)
    rng.choice(FORGERIES)(asked, rng)
    return asked


def _flip_body(asked: Asked, rng: random.Random) -> None:
    place = rng.randrange(len(asked.body))
    changed = bytes([asked.body[place] ^ (1 << rng.randrange(8))])
    asked.body = asked.body[:place] + changed + asked.body[place + 1 :]


def _cut_or_grow(asked: Asked, rng: random.Random) -> None:
    asked.body = asked.body[: rng.randrange(len(asked.body))] if rng.random() < 0.5 else asked.body + rng.randbytes(3)


def _other_secret(asked: Asked, rng: random.Random) -> None:
    others = ("whsec_" + "QUJD" * 8, "whsec_QQ==", "whsec_" + "Y2hhb3MtY2hhb3Mt" * 2)
    asked.headers = signed(asked.source, asked.body, now_s=asked.now_s, secret=rng.choice(others))


def _spoil_signature(asked: Asked, rng: random.Random) -> None:
    name = _signature_of(asked)
    text = asked.headers[name]
    places = [place for place, char in enumerate(text) if place > len(text) - 40 and char.isalnum()][:-3]
    place = rng.choice(places)
    asked.headers[name] = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]


def _rubbish_signature(asked: Asked, rng: random.Random) -> None:
    many = rng.choice((0, 1, 3, 30, 3_000))
    asked.headers[_signature_of(asked)] = "".join(rng.choice(RUBBISH) for _ in range(many))


def _no_signature(asked: Asked, rng: random.Random) -> None:  # noqa: ARG001 - the signature of all forgeries
    del asked.headers[_signature_of(asked)]


def _wrong_time(asked: Asked, rng: random.Random) -> None:
    """Stale or from the future, and signed with that time."""
    if asked.source not in TIMED:
        _flip_body(asked, rng)
        return
    off = rng.choice((310, 900, 86_400, 10**9)) * rng.choice((1, -1))
    asked.headers = signed(asked.source, asked.body, now_s=max(0, asked.now_s + off))


def _odd_time(asked: Asked, rng: random.Random) -> None:
    """Not a time, or not the signed one."""
    odd = rng.choice(("", "-1", "1e9", "٣٤", "9" * 400, "0x10", " ", "NaN", str(asked.now_s + 1), f"{asked.now_s}.5"))
    if asked.source == "stripe":
        asked.headers["Stripe-Signature"] = asked.headers["Stripe-Signature"].replace(f"t={asked.now_s}", f"t={odd}")
    elif asked.source == "generic":
        asked.headers["webhook-timestamp"] = odd
    else:
        _spoil_signature(asked, rng)


def _other_id(asked: Asked, rng: random.Random) -> None:
    if asked.source == "generic":
        asked.headers["webhook-id"] = rng.choice(("msg_2", "", "msg_1.", "msg_1\x00"))
    else:
        _flip_body(asked, rng)


def _other_sources(asked: Asked, rng: random.Random) -> None:
    """Authentic for another source."""
    other = rng.choice([name for name in ("stripe", "lemonsqueezy", "generic") if name != asked.source])
    asked.headers = signed(other, asked.body, now_s=asked.now_s)


def _old_scheme(asked: Asked, rng: random.Random) -> None:
    name = _signature_of(asked)
    if asked.source == "lemonsqueezy":
        asked.headers[name] = asked.headers[name][:-1]
    else:
        asked.headers[name] = asked.headers[name].replace("v1", rng.choice(("v0", "v2", "V1", "")))


FORGERIES: tuple[Callable[[Asked, random.Random], None], ...] = (
    _flip_body,
    _cut_or_grow,
    _other_secret,
    _spoil_signature,
    _rubbish_signature,
    _no_signature,
    _wrong_time,
    _odd_time,
    _other_id,
    _other_sources,
    _old_scheme,
)


def _signature_of(asked: Asked) -> str:
    return next(name for name in asked.headers if name.lower().endswith("signature"))


# -------------------------------------------------------------------------------------------------------- malformed

BROKEN = (
    b"", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{", b"nul", b'{"id": NaN}', b'{"a": -Infinity}', b'{"a": 1, "a": 2}',
    b"[" * 5_000, b'{"a":' * 3_000, b"9" * 6_000, b'{"n": ' + b"9" * 6_000 + b"}", b'"\\ud800"', b'{"id": "\\u0000"}',
    b"\x00" * 100, b"null", b"[]", b"0", b'"text"', b'{"data": []}', b'{"data": {"object": 7}}',
    b'{"type": {"a": 1}, "id": [2], "data": null}', b'{"created": 1e400}', b'{"created": "soon", "livemode": "no"}',
    b"a=1&b=2&a=3", b"%ff=%00", b"<xml/>", b'{"__proto__": {"a": 1}}', b'{"type": "' + b"x" * 100_000 + b'"}',
)  # fmt: skip
METHODS = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "POST", "post", "FOO")
PATHS = (
    "/", "//", "/webhooks", "/webhooks/", "/webhooks//", "/webhooks/nobody", "/webhooks/../etc/passwd", "/webhooks/a/b",
    "/webhooks/stripe/x", "/webhooks/\xff\xfe", "/webhooks/" + "a" * 3_000, "/webhooks/%00", "/webhooks/str\x00ipe",
    "/links/stripe", "/links/nobody", "/healthz", "/readyz", "/metrics", "/static/x", "/.env", "/\x7f\x80",
    "/webhooks/stripe;x", "/webhooks/STRIPE", "/webhooks/stripe?", "*", "",
)  # fmt: skip


def malformed(rng: random.Random, authentic: float) -> Asked:
    """A request that is wrong in its body, or in everything else."""
    return _authentic_rubbish(rng) if rng.random() < authentic else _odd_request(rng)


def _authentic_rubbish(rng: random.Random) -> Asked:
    source = rng.choice(("stripe", "lemonsqueezy", "generic"))
    body = rng.choice(BROKEN) if rng.random() < 0.5 else _damaged(document(rng), rng)
    number = f"msg_{rng.getrandbits(40)}"
    return Asked(source, body, signed(source, body, now_s=int(time.time()), id=number))


def _damaged(body: bytes, rng: random.Random) -> bytes:
    """A document with a few bytes removed, inserted, repeated or changed."""
    found = bytearray(body)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(4):
            case 0:
                del found[at : at + rng.randrange(1, 20)]
            case 1:
                found[at:at] = rng.randbytes(rng.randrange(1, 6))
            case 2:
                found[at:at] = found[at : at + 30]
            case _:
                found[at : at + 1] = rng.choice((b"\x00", b'"', b"{", b"\\u", b"]", b"\xc3", b"1e999"))
    return bytes(found)


def _odd_request(rng: random.Random) -> Asked:
    body = rng.choice(BROKEN)
    asked = Asked("stripe", body, {}, method=rng.choice(METHODS), path=rng.choice(PATHS))
    if rng.random() < 0.5:
        asked.path = "/webhooks/" + rng.choice(("stripe", "lemonsqueezy", "generic", "stripe/"))
        asked.method = "POST"
    for name in ("Stripe-Signature", "X-Signature", "webhook-signature", "Authorization", "Content-Type", "Host"):
        if rng.random() < 0.4:
            asked.headers[name] = "".join(rng.choice(RUBBISH) for _ in range(rng.choice((0, 1, 5, 40))))
    if rng.random() < 0.3:
        asked.environ["CONTENT_LENGTH"] = rng.choice(("", "-1", "abc", "9" * 30, "1", "٣", "1048577", " 5 "))
    if rng.random() < 0.2:
        asked.headers["Content-Encoding"] = rng.choice(("gzip", "br", "identity, gzip", "\xff"))
    asked.query = "".join(rng.choice(RUBBISH + "&=a") for _ in range(rng.choice((0, 0, 3, 30))))
    return asked


# --------------------------------------------------------------------------------------------------------- asking


def _as_wsgi(text: str) -> str:
    """A string as WSGI writes its bytes."""
    return text.encode().decode("latin-1")


class Application:
    """The real application on a database of its own. Use it as a context."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'hostile.db'}"
        store.migrate(url)
        environ = {
            "DATABASE_URL": url, "DATAFAST_API_KEY": KEY, "DATAFAST_API_URL": "http://127.0.0.1:1/api/v1",
            "BRIDGE_MAPPINGS": str(ROOT / "mappings"), "BRIDGE_ADMIN_TOKEN": "admin-of-chaos", **SECRETS,
        }  # fmt: skip
        self.bridge = app.build(table.load(environ), worker=False)
        self.application = web.create(self.bridge)

    def ask(self, asked: Asked) -> int:
        """The status of the answer."""
        environ = {
            "REQUEST_METHOD": asked.method,
            "PATH_INFO": f"/webhooks/{asked.source}" if asked.path is None else _as_wsgi(asked.path),
            "QUERY_STRING": _as_wsgi(asked.query),
            "SERVER_NAME": "chaos.example",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "203.0.113.7",
            "CONTENT_LENGTH": str(len(asked.body)),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(asked.body),
            "wsgi.errors": sys.stderr,
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in asked.headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = _as_wsgi(value)
        environ |= asked.environ
        statuses: list[str] = []

        def start_response(status: str, *_: object) -> Callable[[bytes], object]:
            statuses.append(status)
            return io.BytesIO().write  # nobody calls it

        for _ in self.application.wsgi_app(environ, start_response):
            pass
        return int(statuses[0].split(" ", 1)[0])

    def stored(self) -> int:
        with self.bridge.store.read() as conn:
            return int(conn.exec_driver_sql("SELECT count(*) FROM events").scalar_one())

    def close(self) -> None:
        self.bridge.inbox.close()
        self.bridge.store.close()


@contextlib.contextmanager
def application() -> Iterator[Application]:
    """The bridge's application with a database of its own."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder, silence():
        made = Application(Path(folder))
        try:
            yield made
        finally:
            made.close()


def ask_forged(count: int, seed: int) -> tuple[Counter[int], int]:
    """The statuses of this many forgeries, and how many events were stored (there should be none)."""
    rng = random.Random(seed)
    with application() as made:
        return Counter(made.ask(forged(rng)) for _ in range(count)), made.stored()


def ask_malformed(count: int, seed: int, authentic: float = 0.1) -> Counter[int]:
    """The statuses of this many malformed requests; this share of them is authentic, and must be kept with 200."""
    rng = random.Random(seed)
    with application() as made:
        return Counter(made.ask(malformed(rng, authentic)) for _ in range(count))


# ---------------------------------------------------------------------------------------------------------- sockets


def raw_requests(rng: random.Random) -> bytes:
    """Bytes for a socket: a request with some of its framing broken."""
    body = rng.choice(BROKEN)[:2_000]
    head = [
        rng.choice(("POST /webhooks/stripe HTTP/1.1", "POST /webhooks/stripe", "GET / HTTP/9.9", "\x00\x01", "")),
        rng.choice(("Host: x", "Host", ": x", "Host: \xff", "Hos t: x")),
        "Content-Length: " + rng.choice((str(len(body)), "-1", "5, 6", "x", "9" * 40)),
        rng.choice(("X: 1", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Expect: 200-ok", "Y" * 9_000)),
    ]
    data = (
        rng.choice(("\r\n", "\n", "\r")).join(head).encode("latin-1") + rng.choice((b"\r\n\r\n", b"\n\n", b"")) + body
    )
    return _damaged(data, rng) if rng.random() < 0.5 else data


def ask_raw(port: int, count: int, seed: int) -> Counter[str]:
    """How a server answers such bytes: `2xx`, `4xx` and so on, or `closed`."""
    rng = random.Random(seed)
    return Counter(_send_raw(port, raw_requests(rng)) for _ in range(count))


def _send_raw(port: int, data: bytes) -> str:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        answer = peer.recv(64)
        if answer.startswith(b"HTTP/1.1 "):
            return chr(answer[9]) + "xx"
    return "closed"
