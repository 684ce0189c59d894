"""A file is a bare body or a captured request."""

from __future__ import annotations

import pytest

from bridge.cli import captured
from bridge.errors import UsageError

REQUEST = b'POST /webhooks/shop/?a=1 HTTP/1.1\r\nHost: h.example\r\nX-Sig: abc\r\nContent-Length: 8\r\n\r\n{"a": 1}\n'


def test_a_bare_body_is_taken_byte_by_byte():
    body = b' {"a": 1}\r\n'
    request = captured.request(body, "shop")
    assert (request.body, request.path, request.headers) == (body, "/webhooks/shop", {})
    assert captured.source_in(body) is None


def test_a_captured_request_names_its_source_and_keeps_its_headers():
    request = captured.request(REQUEST, "")
    assert captured.source_in(REQUEST) == "shop"
    assert request.headers["x-sig"] == "abc"
    assert (request.path, request.query_string) == ("/webhooks/shop/", "a=1")
    assert request.url == "https://h.example/webhooks/shop/?a=1"


def test_the_line_end_that_an_editor_added_is_not_part_of_the_body():
    assert captured.request(REQUEST, "").body == b'{"a": 1}'


def test_line_feeds_alone_are_read_as_well():
    assert captured.request(REQUEST.replace(b"\r\n", b"\n"), "").body == b'{"a": 1}'


def test_a_length_that_would_cut_the_body_is_not_believed():
    assert captured.request(REQUEST.replace(b"Length: 8", b"Length: 3"), "").body == b'{"a": 1}\n'


def test_a_header_without_a_colon_is_a_sentence():
    with pytest.raises(UsageError, match="colon"):
        captured.request(b"POST /webhooks/x HTTP/1.1\r\nrubbish\r\n\r\n{}", "x")


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        captured.read_file(str(tmp_path / "none.json"))
