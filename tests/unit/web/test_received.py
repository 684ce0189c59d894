"""A webhook that our server reads is the same request that an application would find in WSGI's environ."""

import io

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from bridge.errors import BodyEncoded, BodyTooLarge
from bridge.server.framing import BODY_LIMIT, Written, received
from bridge.web.messages import accepted, request_of

CLIENT, SERVER = ("192.0.2.7", 50001), ("10.0.0.1", 8080)
BODY = b'{"id": "evt_1"}'


def parsed(*lines, target="/webhooks/stripe", body=BODY, cfg=None):
    states = any(line.startswith(("Content-Length", "Transfer-Encoding")) for line in lines)
    length = () if states else (f"Content-Length: {len(body)}",)
    head = "\r\n".join((f"POST {target} HTTP/1.1", *lines, *length, "", ""))
    return Request(cfg or Config(), IterUnreader([head.encode("latin-1")]), CLIENT, 1)


def both(request, body=BODY, client=CLIENT, server=SERVER):
    direct = received(request, body, client, server)
    request.body = io.BytesIO(body)
    return direct, wsgi.create(request, Written(), client, server, request.cfg)[1]


@pytest.mark.parametrize("target", [
    "/webhooks/stripe", "/webhooks/stripe/", "/webhooks/a%2Fb%20c", "/webhooks/tally?x=1&y=%26", "/webhooks/x?",
    "//webhooks/x", "/webhooks/x?a?b",
])  # fmt: skip
@pytest.mark.parametrize("lines", [
    ("Host: shop.example",),
    ("Host: shop.example:8443", "X-Twilio-Signature: a", "Content-Type: application/json; charset=utf-8"),
    (),
    ("Host:",),
    ("Host: shop.example", "X-Twice: a", "X-Other: o", "x-twice: b", "X-TWICE: "),
    ("Host: shop.example", "Content-Type: a/b", "Content-Encoding: identity"),
    ("Host: shop.example", "X-Name: caf\xe9 \xff", "Stripe-Signature:  t=1,v1=a  "),
    ("Host: shop.example", "Transfer-Encoding: chunked"),
])  # fmt: skip
def test_both_ways_read_the_same_request(target, lines):
    request = parsed(*lines, target=target)
    direct, environ = both(request)
    assert accepted(direct) == request_of(environ)


def test_a_trusted_proxy_says_the_scheme_to_both():
    cfg = Config()
    cfg.set("forwarded_allow_ips", "*")
    direct, environ = both(parsed("Host: shop.example", "X-Forwarded-Proto: https", target="/webhooks/twilio", cfg=cfg))
    assert direct.url == "https://shop.example/webhooks/twilio"
    assert direct == request_of(environ)


@pytest.mark.parametrize(("client", "server"), [("", "/run/bridge.sock"), (("::1", 5, 0, 0), ("::1", 80, 0, 0))])
def test_other_sockets_have_the_same_addresses(client, server):
    direct, environ = both(parsed("Host: shop.example"), BODY, client, server)
    assert direct == request_of(environ)


def test_a_proxy_that_says_so_before_the_request_names_the_client_to_both():
    request = parsed("Host: shop.example")
    request.proxy_protocol_info = {
        "proxy_protocol": "TCP4", "client_addr": "198.51.100.9", "client_port": 7, "proxy_addr": "10.0.0.1",
        "proxy_port": 80,
    }  # fmt: skip
    direct, environ = both(request)
    assert direct.address == "198.51.100.9"
    assert direct == request_of(environ)


@pytest.mark.parametrize(("lines", "body", "error"), [
    (("Host: x", "Content-Encoding: gzip"), BODY, BodyEncoded),
    (("Host: x", "Content-Encoding:  GZIP "), BODY, BodyEncoded),
    (("Host: x", f"Content-Length: {BODY_LIMIT + 1}"), b"", BodyTooLarge),
    (("Host: x", "Transfer-Encoding: chunked"), b"x" * (BODY_LIMIT + 1), BodyTooLarge),
])  # fmt: skip
def test_both_ways_refuse_the_same_bodies(lines, body, error):
    direct, environ = both(parsed(*lines, body=body), body)
    with pytest.raises(error):
        accepted(direct)
    with pytest.raises(error):
        request_of(environ)


def test_a_body_at_the_limit_is_accepted():
    body = b"x" * BODY_LIMIT
    direct, environ = both(parsed("Host: x", body=body), body)
    assert accepted(direct) == request_of(environ)
    assert len(direct.body) == BODY_LIMIT
