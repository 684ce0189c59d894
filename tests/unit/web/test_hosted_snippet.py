"""The bridge's own copies of the snippet: one for each release, for ever, and readable by any page."""

from __future__ import annotations

import hashlib

import pytest

from bridge import snippet

# Each copy that a release or the main branch has served. Sites name these files, with `integrity`: a line is only ever
# added, and neither a line nor its file is changed or taken away.
SERVED = ["947bc7fbc7f42c029195b30c71d31d311e804dee1897066bc001394940de97e7"]
NEWEST = snippet.file_name(snippet.script())


@pytest.mark.parametrize("name", sorted(snippet.hosted()))
def test_a_copy_has_the_name_of_its_contents_and_may_be_kept_for_ever(client, name):
    answer = client.get(f"/{name}")
    assert answer.status_code == 200
    assert name == f"bridge.{hashlib.sha256(answer.data).hexdigest()[:16]}.js"
    assert answer.content_type == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again = client.get(f"/{name}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_whatever_was_served_once_is_served_for_ever(client):
    served = [hashlib.sha256(client.get(f"/{name}").data).hexdigest() for name in snippet.hosted()]
    assert sorted(served) == sorted(SERVED), "add the new copy to the list; put one that is missing or changed back"


def test_the_copy_of_this_release_is_among_them(client):
    assert client.get(f"/{NEWEST}").data.decode() == snippet.script()
    assert client.head(f"/{NEWEST}").headers["Content-Length"] == str(len(snippet.script()))


@pytest.mark.parametrize(
    "path",
    ["/bridge.0123456789abcdef.js", "/bridge.js", "/bridge..js", "/bridge.../snippet.js", "/bridge.%2e%2e%2fx.js"],
)
def test_any_other_name_is_a_sentence_and_is_not_kept(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.text.count("\n")) == (404, 1)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/healthz", "/status", "/bridge.0.js"])
def test_no_other_answer_may_be_read_by_other_origins(client, path):
    assert "Access-Control-Allow-Origin" not in client.get(path).headers


def test_a_copy_cannot_be_posted_to(client):
    assert client.post(f"/{NEWEST}").status_code == 405
