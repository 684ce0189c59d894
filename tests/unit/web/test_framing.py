"""Where requests begin and end, however their bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.server.framing import BODY_LIMIT, HEAD_LIMIT, HeadTooLarge, Inbound, Malformed

HEAD = b"POST /webhooks/stripe HTTP/1.1\r\nHost: h\r\n\r\n"


def inbound(length: int | None) -> Inbound:
    return Inbound(lambda _head: length)


def feed_in_pieces(target: Inbound, data: bytes, cuts: list[int]) -> bool:
    whole = False
    at = 0
    for cut in [*sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]:
        if cut > at:
            whole = target.feed(data[at:cut])
        at = max(at, cut)
    return whole


def chunked(pieces: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces if piece)
    return framed + b"0\r\n" + trailer + b"\r\n"


@given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1000)), behind=st.binary(max_size=20))
def test_a_sized_body_is_the_same_however_it_arrives(body, cuts, behind):
    target = inbound(len(body))
    assert feed_in_pieces(target, HEAD + body, cuts)
    target.feed(behind)
    assert target.whole
    assert target.next_request() == body
    assert target.left_over == bool(behind)


@given(pieces=st.lists(st.binary(max_size=50)), cuts=st.lists(st.integers(0, 1000)))
def test_a_chunked_body_is_the_same_however_it_arrives(pieces, cuts):
    target = inbound(None)
    assert feed_in_pieces(target, HEAD + chunked(pieces, b";a=b", b"X-Trailer: 1\r\n"), cuts)
    assert target.whole
    assert target.next_request() == b"".join(pieces)


@given(pieces=st.lists(st.binary(max_size=50), min_size=1))
def test_a_request_is_not_whole_before_its_last_byte(pieces):
    data = HEAD + chunked(pieces)
    assert not inbound(None).feed(data[:-1])


@given(data=st.binary(max_size=400))
def test_whatever_bytes_arrive_only_known_faults_come_out(data):
    target = inbound(None)
    try:
        target.feed(HEAD + data)
    except Malformed:
        return
    assert len(target.next_request()) <= len(data)


def test_two_requests_behind_each_other_are_two_requests():
    target = inbound(3)
    assert target.feed((HEAD + b"one") + (HEAD + b"two"))
    assert target.next_request() == b"one"
    assert target.feed(b"")
    assert target.next_request() == b"two"
    assert not target.started


@pytest.mark.parametrize("size", [BODY_LIMIT - 1, BODY_LIMIT])
def test_a_body_up_to_the_limit_is_whole(size):
    target = inbound(size)
    assert target.feed(HEAD + b"x" * size)
    assert target.whole
    assert len(target.next_request()) == size
    target = inbound(None)
    assert target.feed(HEAD + chunked([b"x" * size]))
    assert target.whole
    assert len(target.next_request()) == size


def test_a_stated_length_over_the_limit_is_not_read():
    target = inbound(BODY_LIMIT + 1)
    assert target.feed(HEAD)
    assert not target.whole
    assert target.missing == 0
    assert not target.large


def test_a_chunked_body_over_the_limit_ends_one_byte_behind_it():
    target = inbound(None)
    assert target.feed(HEAD + b"%x\r\n" % (2 * BODY_LIMIT) + b"x" * (BODY_LIMIT + 100))
    assert not target.whole
    assert len(target.next_request()) == BODY_LIMIT + 1


@pytest.mark.parametrize(
    "body",
    [
        b"g\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\nhello\n",
        b"5\r\nhello!\r\n",
        b"fffffffff\r\n",
        b"5" + b";" * 5000,
        b"1;" + b"x" * 4000 + b"\r\na\r\n",
    ],
)
def test_a_chunk_that_is_none_is_refused(body):
    target = inbound(None)
    with pytest.raises(Malformed):
        target.feed(HEAD + body * 80)


@pytest.mark.parametrize(
    "trailer",
    [
        b"GET /swallowed HTTP/1.1\r\n",
        b"X: 1\r\n folded: 1\r\n",
        b"\tX: 1\r\n",
        b"X : 1\r\n",
        b": 1\r\n",
        b"X\r\n",
        b"X: 1\nGET / HTTP/1.1\r\n",
        b"X: 1\rGET / HTTP/1.1\r\n",
        b"X: \x00\r\n",
        b"X: \x7f\r\n",
        b"X\x00: 1\r\n",
        b"X\xc3\xa9: 1\r\n",
        b"Content-Length: 5\r\n",
        b"transfer-encoding: chunked\r\n",
        b"HOST: x\r\n",
        b"Connection: close\r\n",
        b"X: " + b"x" * 5000 + b"\r\n",
        b"X: 1\r\n" * 101,
    ],
)
@pytest.mark.parametrize("cuts", [[], list(range(1000))])
def test_a_trailer_that_is_no_header_line_is_refused(trailer, cuts):
    target = inbound(None)
    with pytest.raises(Malformed):
        feed_in_pieces(target, HEAD + chunked([b"x"], trailer=trailer), cuts)


@pytest.mark.parametrize("trailer", [b"X-Checksum: abc\r\n", b"A:\r\nB: \xe9 \t;\r\n", b"X: 1\r\n" * 100])
def test_trailers_are_dropped_and_what_follows_is_the_next_request(trailer):
    target = inbound(None)
    assert target.feed(HEAD + chunked([b"x"], trailer=trailer) + HEAD + chunked([b"y"]))
    assert target.next_request() == b"x"
    assert target.feed(b"")
    assert target.next_request() == b"y"


def test_more_framing_than_body_is_refused():
    target = inbound(None)
    with pytest.raises(Malformed):
        target.feed(HEAD + b"1\r\nx\r\n" * 200_000)


def test_a_head_without_an_end_is_refused_at_the_limit():
    target = inbound(0)
    target.feed(b"GET / HTTP/1.1\r\nX: " + b"x" * (HEAD_LIMIT - 20))
    with pytest.raises(HeadTooLarge):
        target.feed(b"x" * 100)


def test_a_long_head_with_an_end_is_refused_too():
    with pytest.raises(HeadTooLarge):
        inbound(0).feed(b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_LIMIT + b"\r\n\r\n")


def test_a_line_without_carriage_return_is_refused_at_once():
    with pytest.raises(Malformed):
        inbound(0).feed(b"GET / HTTP/1.1\nHost: x")


def test_a_body_is_large_by_what_was_stated_or_by_what_came():
    large, small, growing = inbound(100_000), inbound(1_000), inbound(None)
    large.feed(HEAD)
    small.feed(HEAD)
    growing.feed(HEAD + b"186a0\r\n" + b"x" * 20_000)
    assert (large.large, small.large, growing.large) == (True, False, False)
    growing.feed(b"x" * 20_000)
    assert growing.large
    assert (large.missing, growing.missing) == (100_000, BODY_LIMIT - 40_000)


def test_what_is_held_is_what_came_not_what_was_announced():
    target = inbound(100_000)
    target.feed(HEAD[:5])
    assert target.held == 5
    target.feed(HEAD[5:] + b"x" * 1_000)
    assert target.held == 2 * len(HEAD) + 1_000
    target.feed(b"x" * 99_000)
    target.next_request()
    assert target.held == 0


def test_no_more_is_asked_for_than_a_body_lacks():
    target = inbound(10)
    target.feed(HEAD + b"1234")
    assert target.appetite == 6
