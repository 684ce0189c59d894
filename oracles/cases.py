"""The requests of a row: good ones, and each kind that must be refused, every one with what is expected of both sides.

They are signed by the signer of the bridge's own tests, and once more by a library where there is one that signs.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sources_kit import NOW, URL, signed_request, source, verify_spec

from bridge.presets import presets
from oracles.rows import renamed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.model import Request, VerifySpec
    from oracles.python import Sign
    from oracles.rows import Row

MARGIN_S: Final = 10


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    request: Request
    secret: str
    good: bool  # what both sides must say, unless differences.py names this case


def cases(row: Row, sign: Sign | None) -> Iterator[Case]:
    """All requests of a row; `sign` is a library's signer."""
    for case in _cases(row, sign):
        yield replace(case, name=f"{row.form}: {case.name}" if row.form else case.name)


def _cases(row: Row, sign: Sign | None) -> Iterator[Case]:
    fresh, other = _signed(row, row.secret), _other(row)
    yield Case("good", fresh, row.secret, good=True)
    yield Case("another secret", fresh, other, good=False)
    yield Case("changed", _changed(row, fresh), row.secret, good=False)
    yield Case("no signature", _unsigned(row, fresh), row.secret, good=False)
    yield from _of_other_ages(row)
    if _spec(row).signature.split and row.preset != "workos":  # whose library reads exactly one
        yield from _of_several_signatures(row, fresh, other)
    for variant in row.variants:
        yield Case(variant.name, variant.edit(fresh), row.secret, variant.good)
    if sign is not None:
        theirs = _signed_by(row, sign, fresh, row.secret)
        yield Case("signed by the library", theirs, row.secret, good=True)
        yield Case("signed by the library, changed", _changed(row, theirs), row.secret, good=False)
        yield Case("signed by the library, another secret", _signed_by(row, sign, fresh, other), row.secret, good=False)


def _of_other_ages(row: Row) -> Iterator[Case]:
    stamp = _spec(row).timestamp
    if stamp is None:
        return
    for age, good in ((stamp.tolerance_s - MARGIN_S, True), (stamp.tolerance_s + MARGIN_S, False)):
        yield Case(f"{age} s old", _signed(row, row.secret, NOW - age), row.secret, good)
        yield Case(f"{age} s ahead", _signed(row, row.secret, NOW + age), row.secret, good)


def _of_several_signatures(row: Row, ours: Request, other: str) -> Iterator[Case]:
    """As while a secret is rotated, when a provider signs with both."""
    theirs, of_another_body = _signed(row, other), _signed(row, row.secret, body=row.body(NOW) + b" ")
    for name, pair, good in (
        ("the first of two signatures", (ours, theirs), True),
        ("the second of two signatures", (theirs, ours), True),
        ("neither of two signatures", (theirs, replace(of_another_body, body=ours.body)), False),
    ):
        yield Case(name, _joined(row, *pair), row.secret, good)


# ----------------------------------------------------------------------------------------------------------- signing


def _stanza(row: Row) -> dict[str, Any]:
    """How the row is signed. The unit of its timestamp is the row's own to say."""
    stanza = {**(row.signs if row.signs is not None else presets()[row.preset]["verify"])}
    if "timestamp" in stanza:
        stanza["timestamp"] = {key: value for key, value in stanza["timestamp"].items() if key != "form"}
    return {key: value for key, value in stanza.items() if key != "or"}


def _spec(row: Row) -> VerifySpec:
    return verify_spec(_stanza(row))


def _signed(row: Row, secret: str, at: int = NOW, body: bytes | None = None) -> Request:
    made = replace(source(row.preset), verify=_spec(row), public_url=row.signs_url or None)
    stamp = at * row.unit
    sent = signed_request(made, secret.removeprefix("v1,"), body or row.body(stamp), stamp)
    sent = replace(sent, url=URL if row.signs_url else sent.url, headers={**row.headers, **sent.headers})
    if row.glue and made.verify.signature.split:
        place = _header(row)
        sent = replace(sent, headers={**sent.headers, place: row.glue.join(_elements(row, sent))})
    return _in_family(row, sent)


def _in_family(row: Row, sent: Request) -> Request:
    if not row.family:
        return sent
    return renamed("webhook-", f"{row.family}-")(sent)


def _signed_by(row: Row, sign: Sign, sent: Request, secret: str) -> Request:
    return replace(sent, headers={**sent.headers, _header(row): sign(sent, secret, str(NOW * row.unit))})


def _joined(row: Row, *sent: Request) -> Request:
    """One request with the signatures of all; what they share (the time) is written once."""
    elements = dict.fromkeys(element for request in sent for element in _elements(row, request))
    glue = row.glue or _spec(row).signature.split or ""
    return replace(sent[0], headers={**sent[0].headers, _header(row): glue.join(elements)})


def _elements(row: Row, sent: Request) -> list[str]:
    return [element.strip() for element in sent.headers[_header(row)].split(_spec(row).signature.split)]


def _header(row: Row) -> str:
    name = _spec(row).signature.places[0].name.lower()
    return name.replace("webhook-", f"{row.family}-") if row.family else name


def _changed(row: Row, sent: Request) -> Request:
    assert row.changed[0] in sent.body
    return replace(sent, body=sent.body.replace(*row.changed))


def _unsigned(row: Row, sent: Request) -> Request:
    if _spec(row).signature.places[0].where == "header":
        return replace(sent, headers={name: text for name, text in sent.headers.items() if name != _header(row)})
    document = json.loads(sent.body)
    document["signature"]["signature"] = ""
    return replace(sent, body=json.dumps(document).encode())


def _other(row: Row) -> str:
    """A secret of the same form that is not the row's."""
    if row.other:
        return row.other
    if row.secret.endswith("="):
        prefix, mark, text = row.secret.rpartition("_")
        return prefix + mark + base64.b64encode(base64.b64decode(text)[::-1]).decode()
    return row.secret[:-8] + row.secret[-8:][::-1]
