"""`/console/people`: a search and the most recent people; one person across all sources; and changes to links.

Here visitors are bound, and keys and people forgotten, each with a preview first. An e-mail address is searched by its
hash: it is sent in the body of a form, and never appears in a URL or on a page. A key that contains one never appears
in a URL either: use the commands for it.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, redirect, request, url_for

from bridge import identity
from bridge.errors import BridgeError
from bridge.identity.sentences import best_first, kind_in_words
from bridge.masking import without_addresses
from bridge.model import Key
from bridge.store.operator import activity, forgetting, queries, threads
from bridge.text import count, money
from bridge.web.console import filters
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
    from bridge.workbench.why import NamedPerson

FOUND_MAX: Final = 300  # events found only by their bodies: as many as a URL can carry
NO_ADDRESSES: Final = "Addresses are remembered, as hashes, once BRIDGE_MATCH_EMAIL is on."


def add(routes: Blueprint, bridge: Bridge) -> None:
    """The routes."""
    for path, endpoint, view, method in (
        ("/people", "people", _people, "GET"),
        ("/people", "find_person", _find, "POST"),
        ("/people/<path:name>", "show_person", _show, "GET"),
        ("/people/bind", "bind", _bind_form, "GET"),
        ("/people/bind", "bind_sent", _bind, "POST"),
        ("/people/forget", "forget", _forget_form, "GET"),
        ("/people/forget", "forget_sent", _forget, "POST"),
    ):
        routes.add_url_rule(path, endpoint, partial(view, bridge), methods=[method])


def _people(bridge: Bridge) -> ResponseReturnValue:
    if "who" in request.args:
        return _show(bridge, request.args["who"])
    with bridge.store.read() as conn:
        seen = why.recent_people(conn)
    return page("people.html", title="People", here="people", seen=seen, **TEMPLATE_FUNCTIONS)


def _find(bridge: Bridge) -> ResponseReturnValue:
    return _redirect_to_person(bridge, request.form.get("who", "").strip())


def _show(bridge: Bridge, name: str) -> ResponseReturnValue:
    return _redirect_to_person(bridge, name) if "@" in name else _person_page(bridge, name)


def person_url(name: str, **more: Any) -> str:
    """The URL of a person's page. The id is a parameter, because one like `../a` would lead elsewhere as a path."""
    if {"", ".", ".."} & set(name.split("/")):
        return url_for("console.people", who=name, **more)
    return url_for("console.show_person", name=name, **more)


def kind_of(key: KeyLine) -> str:
    """The kind of a key, in words."""
    return "e-mail" if key.kind == "email" else kind_in_words(key.kind)


TEMPLATE_FUNCTIONS: Final[dict[str, Any]] = {
    "person_url": person_url,
    "public": why.public_name,
    "hidden": without_addresses,
    "kind_of": kind_of,
    "count": count,
    "money": money,
}


def _redirect_to_person(bridge: Bridge, text: str) -> ResponseReturnValue:
    """Redirect to the page of the person searched for."""
    with bridge.store.read() as conn:
        name = why.url_name(conn, text[: why.NAME_MAX])
    if name is None:
        problem = "No such e-mail address is remembered" if text else "Type an id or an e-mail address"
        notice(f"{problem}. {NO_ADDRESSES}" if text else f"{problem}.")
        return redirect(url_for("console.people"), 303)
    return redirect(person_url(name), 303)


def _person_page(bridge: Bridge, name: str) -> ResponseReturnValue:
    """Everything about one person, or what to do if nobody is known by this id."""
    before = filters.row_id(request.args, "before")
    with bridge.store.read() as conn:
        view = why.person_page(conn, name, bridge.settings, before)
        events = queries.find(conn, why.cleaned(name)[: why.NAME_MAX]).events if view is None else ()
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
        **TEMPLATE_FUNCTIONS,
    )


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
            binding = linking.preview(bridge.store, _key(chosen), known, settings, settings.environ)
    return page(
        "bind.html",
        title="Bind a visitor",
        here="people",
        keys=keys,
        event=request.args.get("event", ""),
        visitor=visitor,
        binding=binding,
        problem=problem,
        **TEMPLATE_FUNCTIONS,
        code=400 if problem else 200,
    )


def _bindable(conn: Connection, settings: Settings) -> list[KeyLine]:
    """The keys that may be meant, the most telling first: of an event, or by name."""
    match = re.fullmatch(r"ev_(\d{1,18})", request.args.get("event", ""))
    named = request.values.get("key", "")
    if named:
        found = threads.named(conn, why.cleaned(named)[: why.NAME_MAX])
    else:
        found = threads.keys_of_event(conn, int(match[1])) if match else []
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
    return redirect(person_url(keys[0].key), 303)


def _key(line: KeyLine) -> Key:
    return Key(line.key, line.kind, line.ref)


# ------------------------------------------------------------------------------------------------------ forget a key


def _forget_key_form(bridge: Bridge) -> ResponseReturnValue:
    with bridge.store.read() as conn:
        cut = _cut(conn)
    return page("forget_key.html", title="Forget a key", here="people", cut=cut, **TEMPLATE_FUNCTIONS)


def _cut(conn: Connection) -> Cut:
    named = why.cleaned(request.values.get("key", ""))[: why.NAME_MAX]
    keys = [key for key in threads.named(conn, named) if named in (key.key, why.public_name(key))]
    if len(keys) != 1:
        raise BridgeError("No key has this name any more. It may have been forgotten already.")
    return linking.plan_cut(conn, _key(keys[0]))


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
    if "key" in request.args:
        return _forget_key_form(bridge)
    name = request.args.get("person", "")
    if "@" in name:
        with bridge.store.read() as conn:
            name = why.url_name(conn, name) or ""
        return redirect(url_for("console.forget", person=name), 303)
    someone = _someone(bridge, name)
    found = _ids(request.args.get("found", ""))
    plan = _plan(bridge, someone, found, filters.row_id(request.args, "after") or 0)
    if len(plan.found) > FOUND_MAX:
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
        plan=plan,
        found=",".join(map(str, sorted(plan.found))),
        newest=newest,
        how_much=linking.stored_amounts(plan.person),
        mentioned=linking.about_mentions(plan.person),
        left=linking.left_to_do(plan.person),
        **TEMPLATE_FUNCTIONS,
    )


def _forget(bridge: Bridge) -> ResponseReturnValue:
    if "key" in request.form:
        return _forget_key(bridge)
    someone = _someone(bridge, request.form.get("person", ""))
    plan = _plan(bridge, someone, _ids(request.form.get("found", "")), None)
    done = change(bridge, "forget", lambda conn: Done("", linking.forget(conn, plan)))
    if not forgetting.scrub(bridge.store):
        notice(f"{done.sentence} {forgetting.NOT_SCRUBBED}")
    return redirect(url_for("console.people"), 303)


def _plan(bridge: Bridge, someone: NamedPerson, found: Iterable[int], after: int | None) -> Forgetting:
    linking.require_one_person(someone.name, someone.named)
    preparer = stored.preparer(bridge.store, bridge.rules, bridge.settings)
    return linking.plan_forgetting(
        bridge.store, preparer, linking.WantedPerson(someone.named, someone.visitor), found, after
    )


def _someone(bridge: Bridge, name: str) -> NamedPerson:
    with bridge.store.read() as conn:
        someone = why.named_person(conn, name)
    if someone is None:
        raise BridgeError("Nobody is known by this id. They may have been forgotten already.")
    return someone


def _ids(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,18}", text)][: FOUND_MAX + 1]
