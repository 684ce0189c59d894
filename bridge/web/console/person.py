"""`/console/people`: a search and the people of late; `/console/people/<id>`: one person over all sources.

An e-mail address is looked for by its hash: it comes in the body of a form, and stands in no address and on no page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, redirect, request, url_for

from bridge.identity.sentences import in_words
from bridge.masking import without_addresses
from bridge.store.operator import queries
from bridge.text import count, money
from bridge.web.console import filters
from bridge.web.console.rendering import notice, page
from bridge.workbench import why

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from bridge.app import Bridge
    from bridge.store.operator.threads import KeyLine


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The routes."""

    @routes.get("/people")
    def people() -> ResponseReturnValue:
        if "who" in request.args:
            return show_person(request.args["who"])
        with bridge.store.read() as conn:
            seen = why.lately(conn)
        return page("people.html", title="People", here="people", seen=seen, **NAMING)

    @routes.post("/people")
    def find_person() -> ResponseReturnValue:
        return _found(bridge, request.form.get("who", "").strip())

    @routes.get("/people/<path:name>")
    def show_person(name: str) -> ResponseReturnValue:
        return _found(bridge, name) if "@" in name else person_page(bridge, name)


def address(name: str, **more: Any) -> str:
    """The address of a person's page. An id like `../a` would lead elsewhere as a path, so it becomes a parameter."""
    if {"", ".", ".."} & set(name.split("/")):
        return url_for("console.people", who=name, **more)
    return url_for("console.show_person", name=name, **more)


def kind_of(key: KeyLine) -> str:
    """What a key is the key of, in words."""
    return "e-mail" if key.kind == "email" else in_words(key.kind)


NAMING: Final[dict[str, Any]] = {
    "address": address,
    "public": why.public,
    "hidden": without_addresses,
    "kind_of": kind_of,
    "counted": count,
    "money": money,
}


def _found(bridge: Bridge, text: str) -> ResponseReturnValue:
    """Lead to the page of whom was looked for."""
    with bridge.store.read() as conn:
        name = why.address_of(conn, text[: why.LONGEST])
    if name is None:
        what = "No such e-mail address is remembered" if text else "Type an id or an e-mail address"
        notice(f"{what}. {NO_ADDRESSES}" if text else f"{what}.")
        return redirect(url_for("console.people"), 303)
    return redirect(address(name), 303)


NO_ADDRESSES: Final = "Addresses are remembered, as hashes, once BRIDGE_MATCH_EMAIL is on."


def person_page(bridge: Bridge, name: str) -> ResponseReturnValue:
    """Everything about one person, or what to do if nobody is known by this id."""
    before = filters.row(request.args, "before")
    with bridge.store.read() as conn:
        view = why.person_page(conn, name, bridge.settings, before)
        events = queries.find(conn, why.readable(name)[: why.LONGEST]).events if view is None else ()
    if view is None:
        return page(
            "nobody.html", title="Nobody is known by this id", here="people", code=404, name=name, events=events
        )
    return page(
        "person.html",
        title=view.someone.called[0].upper() + view.someone.called[1:],
        here="people",
        view=view,
        name=view.someone.name,
        before=before,
        **NAMING,
    )
