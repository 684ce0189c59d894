"""What a person does about links: bind a visitor, forget a key, forget a person; each with a preview first.

A key that holds an e-mail address stands in no address of the console: the commands take it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from flask import Blueprint, redirect, request, url_for

from bridge import identity
from bridge.errors import BridgeError
from bridge.identity.sentences import best_first
from bridge.model import Key
from bridge.store.operator import activity, forgetting, threads
from bridge.web.console import filters
from bridge.web.console.person import NAMING, address
from bridge.web.console.rendering import Done, change, notice, page
from bridge.workbench import linking, stored, why

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask.typing import ResponseReturnValue
    from sqlalchemy import Connection

    from bridge.app import Bridge
    from bridge.settings import Settings
    from bridge.store.operator.threads import KeyLine
    from bridge.workbench.linking import Cut, Forgetting
    from bridge.workbench.why import Someone

FOUND_MAX: Final = 300  # events that only their bodies tell, which an address can still carry


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The routes."""

    @routes.get("/people/bind")
    def bind() -> ResponseReturnValue:
        return _bind_form(bridge)

    @routes.post("/people/bind")
    def bind_sent() -> ResponseReturnValue:
        return _bind(bridge)

    @routes.get("/people/forget")
    def forget() -> ResponseReturnValue:
        return _forget_key_form(bridge) if "key" in request.args else _forget_form(bridge)

    @routes.post("/people/forget")
    def forget_sent() -> ResponseReturnValue:
        return _forget_key(bridge) if "key" in request.form else _forget(bridge)


# ------------------------------------------------------------------------------------------------------------- bind


def _bind_form(bridge: Bridge) -> ResponseReturnValue:
    """Which key, which visitor; and once both are given, what would happen."""
    visitor = request.args.get("visitor", "").strip()
    with bridge.store.read() as conn:
        keys = _bindable(conn, bridge.settings)
    chosen = keys[0] if len(keys) == 1 else None
    binding, problem = None, None
    if chosen is not None and visitor:
        try:
            known = identity.visitor_to_bind(visitor, bridge.settings.bridge_visitor_id)
        except identity.BadBinding as error:
            problem = f"{error}."
        else:
            settings = bridge.settings
            binding = linking.foretold(bridge.store, _key(chosen), known, settings, settings.environ)
    return page(
        "bind.html",
        title="Bind a visitor",
        here="people",
        keys=keys,
        event=request.args.get("event", ""),
        visitor=visitor,
        binding=binding,
        problem=problem,
        **NAMING,
        code=400 if problem else 200,
    )


def _bindable(conn: Connection, settings: Settings) -> list[KeyLine]:
    """The keys that may be meant, the most telling first: of an event, or by name."""
    event = re.fullmatch(r"ev_(\d{1,18})", request.args.get("event", ""))
    named = request.values.get("key", "")
    if named:
        found = threads.named(conn, why.readable(named)[: why.LONGEST])
    else:
        found = threads.of_event(conn, int(event[1])) if event else []
    usable = [key for key in found if why.may_be_bound(key, settings)]
    return sorted(usable, key=lambda key: best_first(key.kind))


def _bind(bridge: Bridge) -> ResponseReturnValue:
    with bridge.store.read() as conn:
        keys = _bindable(conn, bridge.settings)
    if len(keys) != 1:
        raise BridgeError("The key is not known any more. Open the person's page again.")
    settings = bridge.settings
    try:
        visitor = identity.visitor_to_bind(request.form.get("visitor", ""), settings.bridge_visitor_id)
    except identity.BadBinding as error:
        raise BridgeError(f"{error}.") from None

    def bound(conn: Connection) -> Done:
        binding = linking.bind(conn, _key(keys[0]), visitor, settings, settings.environ)
        return Done(binding.key.text, binding.done, " ".join(binding.sentences()))

    change(bridge, "bind", bound)
    return redirect(address(keys[0].key), 303)


def _key(line: KeyLine) -> Key:
    return Key(line.key, line.kind, line.ref)


# ------------------------------------------------------------------------------------------------------ forget a key


def _forget_key_form(bridge: Bridge) -> ResponseReturnValue:
    with bridge.store.read() as conn:
        cut = _cut(conn)
    return page("forget_key.html", title="Forget a key", here="people", cut=cut, **NAMING)


def _cut(conn: Connection) -> Cut:
    named = why.readable(request.values.get("key", ""))[: why.LONGEST]
    keys = [key for key in threads.named(conn, named) if named in (key.key, why.public(key))]
    if len(keys) != 1:
        raise BridgeError("No key has this name any more. It may have been forgotten already.")
    return linking.cut_of(conn, _key(keys[0]))


def _forget_key(bridge: Bridge) -> ResponseReturnValue:
    def forgotten(conn: Connection) -> Done:
        cut = _cut(conn)
        linking.cut(conn, cut, bridge.settings)
        return Done(cut.key.text, cut.done)

    change(bridge, "forget key", forgotten)
    return redirect(url_for("console.people"), 303)


# --------------------------------------------------------------------------------------------------- forget a person


def _forget_form(bridge: Bridge) -> ResponseReturnValue:
    """What is stored, as far as bodies were looked through; the page asks for the next part until all were."""
    name = request.args.get("person", "")
    if "@" in name:
        with bridge.store.read() as conn:
            name = why.address_of(conn, name) or ""
        return redirect(url_for("console.forget", person=name), 303)
    someone = _someone(bridge, name)
    found = _ids(request.args.get("found", ""))
    what = _to_forget(bridge, someone, found, filters.row(request.args, "after") or 0)
    if len(what.found) > FOUND_MAX:
        raise BridgeError(
            f"More than {FOUND_MAX} stored bodies hold an id of this person, though no link leads to their events. Use"
            " `python -m bridge forget`, which says how to name the person."
        )
    with bridge.store.read() as conn:
        newest = activity.newest_id(conn, activity.EVENTS)
    return page(
        "forget.html",
        title="Forget a person",
        here="people",
        someone=someone,
        what=what,
        found=",".join(map(str, sorted(what.found))),
        newest=newest,
        how_much=linking.how_much(what.person),
        mentioned=linking.mentioned(what.person),
        left=linking.left_to_do(what.person),
        **NAMING,
    )


def _forget(bridge: Bridge) -> ResponseReturnValue:
    someone = _someone(bridge, request.form.get("person", ""))
    what = _to_forget(bridge, someone, _ids(request.form.get("found", "")), None)
    done = change(bridge, "forget", lambda conn: Done("", linking.forget(conn, what)))
    if not forgetting.scrub(bridge.store):
        notice(f"{done.sentence} {forgetting.NOT_SCRUBBED}")
    return redirect(url_for("console.people"), 303)


def _to_forget(bridge: Bridge, someone: Someone, found: Iterable[int], after: int | None) -> Forgetting:
    linking.the_person(someone.name, someone.named)
    preparer = stored.preparer(bridge.store, bridge.rules, bridge.settings)
    return linking.to_forget(bridge.store, preparer, linking.Sought(someone.named, someone.visitor), found, after)


def _someone(bridge: Bridge, name: str) -> Someone:
    with bridge.store.read() as conn:
        someone = why.who(conn, name)
    if someone is None:
        raise BridgeError("Nobody is known by this id. They may have been forgotten already.")
    return someone


def _ids(text: str) -> list[int]:
    return [int(one) for one in re.findall(r"\d{1,18}", text)][: FOUND_MAX + 1]
