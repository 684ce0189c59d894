"""The table of providers in docs/providers.md, from the presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bridge.presets import presets

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD: Final = """# Providers

Written by `make docs` from `bridge/sources/presets.yaml`.
`provider: <name>` in a mapping file takes everything from here; the file can override every key.

The last column says what each preset was checked against, and when:

- `run`: the provider's own library. `make oracles` runs it, and its verdicts are [below](#verdicts).
- `family`: a library of the signature scheme, which the provider's source or documentation names.
- `captured`: requests that the provider sent.
- `read`: source or documentation.
- `assumed`: we found nothing published by the provider. Watch the first deliveries.

The fifth column names the events that can hand a visitor over. If most of the last goals made from them have none, `/status` says so
([Alarms](operations.md#alarms)). A file can name its own such events with `handover:`.

| provider | authenticated by | type · id of the event | where the visitor id is | handed over by | where to set it up; the secret | checked |
|---|---|---|---|---|---|---|
"""  # noqa: E501


def table() -> str:
    """All presets as Markdown."""
    return _HEAD + "".join(_row(name, written) for name, written in presets().items())


def _row(name: str, written: Mapping[str, Any]) -> str:
    envelope = written.get("envelope", {})
    event_id = written.get("id_note") or _paths(envelope.get("id")) or "hash of the body"
    visitor = _visitor(written) or "set `visitor:` yourself"
    event_type = _paths(envelope.get("type")) or "set `envelope:` yourself"
    cells = (
        f"`{name}`",
        _schemes(written["verify"]),
        f"{event_type} · {event_id}",
        visitor,
        ", ".join(f"{kind}: {events}" for kind, events in _handovers(written).items()),
        _warning(written) + "; ".join(written[key] for key in ("where", "secret_hint", "note") if key in written),
        "{how}: {against} ({on})".format(**written["checked"]),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _warning(written: Mapping[str, Any]) -> str:
    return f"**Cannot be set up:** {written['cannot_be_set_up']}. " if "cannot_be_set_up" in written else ""


def _schemes(verify: Mapping[str, Any]) -> str:
    schemes = [_scheme(written) for written in (verify, *verify.get("or", ()))]
    return "; or ".join(dict.fromkeys(schemes))  # two may differ in a prefix only


def _scheme(verify: Mapping[str, Any]) -> str:
    place = verify.get("signature", {}).get("in", "header:Authorization")
    places = ", ".join(f"`{text}`" for text in ([place] if isinstance(place, str) else place))
    if verify["type"] in ("token", "basic"):
        return f"{verify['type']} in {places}"
    return f"{verify['type']} of `{verify.get('signed', '{body}')}` in {places}"


def _visitor(written: Mapping[str, Any]) -> str:
    borrowed = _paths(written.get("borrowed"))
    places = [_paths(written.get("visitor")), f"with the prefix `dfv_`: {borrowed}" if borrowed else ""]
    return "; ".join(place for place in places if place)


def _handovers(written: Mapping[str, Any]) -> dict[str, str]:
    """The events by kind; `(some)` are those that must also meet a condition."""
    found: dict[str, list[str]] = {}
    for entry in written.get("handover", ()):
        some = " (some)" if "when" in entry else ""
        events = [entry["event"]] if isinstance(entry["event"], str) else entry["event"]
        found.setdefault(entry.get("kind", "goal"), []).extend(f"`{event}`{some}" for event in events)
    return {kind: ", ".join(events) for kind, events in found.items()}


def _paths(written: Any) -> str:
    listed = [written] if isinstance(written, str) else written or ()
    return ", ".join(f"`{path}`" for path in listed)
