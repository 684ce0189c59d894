"""`detect`: finds the signature scheme of a request. Prints it for a mapping file, or the one setting that is wrong.

For a terminal only: its results are never part of an answer to a sender. It opens no database and makes no request.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain, product
from typing import TYPE_CHECKING, Any, Final

import click
import yaml

from bridge import loading, sources
from bridge.cli import captured, parameters, resources
from bridge.cli.catalogue import command
from bridge.cli.screen import Screen, current_screen
from bridge.errors import MappingError, SignatureError, UsageError
from bridge.model import UNSIGNED_TYPES
from bridge.presets import event_names, presets
from bridge.sources import detection
from bridge.text import listing, span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bridge.model import Place, Request, Source, VerifySpec

_MANY: Final = 6  # at most this many providers of one scheme are named
_TOO_OLD: Final = re.compile(r"the timestamp is ([0-9]+) s (old|in the future), at most ([0-9]+) s")
_HIDDEN_FROM: Final = 8  # characters: a shorter secret occurs in ordinary words, too
_WIDE: Final = 10_000  # lines of a mapping file are not wrapped
_DEFAULTS: Final = {"key": ("text",), "encoding": ("hex",), "signed": ("{body}",)}


@dataclass
class Detected:
    """The findings about a captured request.

    verified: a source by which the request verifies. spec: the scheme, as in `verify:`. providers: those that use the
    scheme, the likeliest first. fitting: whether the source's own scheme fits. change: the one wrong setting of the
    source's scheme, and the scheme with it corrected.
    """

    verified: Source | None = None
    spec: VerifySpec | None = None
    providers: list[str] = field(default_factory=list)
    fitting: bool = False
    change: tuple[str, VerifySpec] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.verified is not None


@command(
    examples=[
        ("detect captured.http --secret whsec_…", "a request with its headers, as tools that catch webhooks export it"),
        ("detect captured.http --source my-shop", "the one wrong setting in the `verify:` of mappings/my-shop.yaml"),
    ]
)
@click.argument("file", metavar="FILE")
@click.option(
    "--secret",
    "secrets",
    metavar="SECRET",
    multiple=True,
    help="The secret of the sender. If you leave it out, the command takes the secrets of --source, or asks.",
)
@click.option("--source", "name", metavar="NAME", help="Compare with the scheme in this source's mapping file.")
@click.option("--url", metavar="URL", help="The webhook URL as the provider knows it, for schemes that sign it.")
@parameters.MAPPINGS
def detect(file: str, secrets: Sequence[str], name: str | None, url: str | None, mappings: Path | None) -> int:
    """Find the signature scheme of a captured request, and print it as a mapping file.

    FILE is the request as it came (`POST /path HTTP/1.1`, headers, an empty line, the body), or its export as JSON
    (`headers` and `body` or `body_base64`); `-` reads standard input. Its age does not matter. The exit code is 1 if no
    scheme fits this secret.
    """
    screen = current_screen()
    content = captured.read_file(file)
    request = _request(file, content, url)
    source = None if name is None else resources.source(resources.load_rules(mappings), name)
    tried = [*secrets] or [*(source.secrets if source else ())] or [click.prompt("Secret", hide_input=True, err=True)]
    screen.hide([secret for secret in tried if len(secret) >= _HIDDEN_FROM])
    found = find(request, tried, source)
    screen.write_json(as_json(found))
    show(screen, found, request, tried, name)
    return 0 if found.ok else 1


def _request(file: str, content: bytes, url: str | None) -> Request:
    request = captured.request(content, "") if captured.is_request(content) else captured.exported(content)
    if request is None:
        raise UsageError(
            f"{file}: this is not a whole request. detect needs `POST /path HTTP/1.1`, the headers, an empty line"
            " and the body, byte for byte as it came; or JSON with `headers` and `body`."
        )
    return replace(request, url=url) if url else request


def find(request: Request, secrets: Sequence[str], source: Source | None) -> Detected:
    """Compare with the source first, then with every provider, then with whatever `verify:` can express."""
    found = Detected()
    bodies = dict.fromkeys([request.body, request.body.rstrip(b"\r\n")])  # an editor may have added a line end
    for body, secret in product(bodies, secrets):
        sent = replace(request, body=body)
        found = _find(sent, secret, replace(source, secrets=(secret,)) if source else None)
        if found.verified is not None:
            found.notes = _notes(found.verified, sent, shortened=body != request.body)
            return found
    return found


def _find(sent: Request, secret: str, own: Source | None) -> Detected:
    if own is not None and detection.fits(own, sent):
        return Detected(own, own.verify, [own.provider], fitting=True)
    fitting = _providers(sent, secret)
    found = Detected(next(iter(fitting), None), detection.detect(sent, secret), [source.provider for source in fitting])
    if found.spec is not None:
        found.verified = found.verified or detection.plain_source(sent, found.spec, secret)
    if own is not None and (change := detection.one_change(own, sent, found.spec)) is not None:
        found.change, found.verified = change, replace(own, verify=change[1])
    return found


def _providers(request: Request, secret: str) -> list[Source]:
    """The presets by which this request verifies, first those known to send events of its type."""

    def likelihood(source: Source) -> tuple[bool, bool, bool]:
        event_type = sources.read(source, request).envelope.type
        unknown = event_type not in _known_types(source.provider)
        return unknown, source.provider not in request.path, source.provider != "standard-webhooks"

    signing = [
        replace(source, secrets=(secret,))
        for source, timeless in _presets()
        if detection.verifies(replace(timeless, secrets=(secret,)), request)
    ]
    return sorted(signing, key=likelihood)


def _known_types(provider: str) -> set[str]:
    """The event types that the preset names."""
    handovers = presets()[provider].get("handover", ())
    named = [[entry["event"]] if isinstance(entry["event"], str) else entry["event"] for entry in handovers]
    return {*event_names(provider), *chain(*named)}


@cache
def _presets() -> tuple[tuple[Source, Source], ...]:
    """A source for every provider that signs, with and without its age limit. A token does not identify a provider."""
    presets = sources.presets()
    signing = [name for name, preset in presets.items() if preset["verify"]["type"] not in UNSIGNED_TYPES]
    loaded = []
    for name in signing:
        with suppress(MappingError):  # it needs more than a secret
            text = f"provider: {name}\nsecret: ${{SECRET}}\ngoals: []\n"
            loaded.append(loading.load({"any.yaml": text}, {"SECRET": "unused-" + name}, presets).sources["any"])
    return tuple((source, detection.timeless(source)) for source in loaded)


def _notes(verified: Source, sent: Request, *, shortened: bool) -> list[str]:
    notes = ["The file ends with a newline that was not sent: an editor added it."] if shortened else []
    try:
        sources.verify(replace(verified, require=()), sent, time.time())
    except SignatureError as error:
        if found := _TOO_OLD.match(str(error)):
            age, when, allowed = span(int(found[1]) * 1000), found[2], span(int(found[3]) * 1000)
            notes.append(f"Its timestamp is {age} {when}. detect ignores that; a running bridge allows {allowed}.")
    return notes


# ------------------------------------------------------------------------------------------------------ the answer


def show(screen: Screen, found: Detected, request: Request, secrets: Sequence[str], name: str | None) -> None:
    if found.fitting:
        screen.mark("ok", f"The scheme of {name} fits this request.")
    elif found.change:
        setting, spec = found.change
        screen.mark("fail", f"The scheme of {name} does not fit, but it does with this one change ({setting}):")
        _print_yaml(screen, {"verify": _single_setting(spec, setting)})
    elif found.verified is not None:
        if name is not None:
            screen.mark("fail", f"The scheme of {name} does not fit, and no single change makes it fit.")
        _show_scheme(screen, found)
    else:
        screen.mark("fail", "No scheme fits: with this secret, nothing `verify:` can describe gives the signature.")
        for sentence in _advice(request, secrets):
            screen.say(sentence, indent=6)
    for note in found.notes:
        screen.mark("warn", note)


def _show_scheme(screen: Screen, found: Detected) -> None:
    names = found.providers
    if names:
        screen.mark("ok", f"This is signed as {names[0]} signs.")
        _print_yaml(screen, {"provider": names[0]})
    if len(names) > 1:
        others = f"{', '.join(names[1:_MANY])} and others" if len(names) > _MANY + 1 else listing(names[1:])
        screen.say(f"If it comes from another sender, name that one: {others} sign the same way.", indent=6)
    elif not names and found.spec:
        screen.mark("ok", "No provider that the bridge knows signs like this, but `verify:` can describe it.")
        _print_yaml(screen, {"provider": "custom", "verify": _written(found.spec)})


def _print_yaml(screen: Screen, mapping: dict[str, Any]) -> None:
    for line in yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=_WIDE).splitlines():
        screen.line(f"    {line}")


def _advice(request: Request, secrets: Sequence[str]) -> list[str]:
    """What to check next; never says anything about the secret itself."""
    where = detection.signatures(request, secrets[0])
    if not where:
        seen = "Nothing in its headers or its query looks like a signature. Was the request captured with all headers?"
        return [seen, "A sender that signs nothing is verified by a token in the URL: docs/rules.md."]
    looks = listing([f"{place} ({name.upper()})" for place, name in where])
    return [
        f"What looks like a signature: {looks}.",
        "Is the secret that of this very endpoint? Is the body byte for byte as it came, and not reformatted?",
        "For a scheme that signs the webhook URL, give the URL as the provider knows it: --url.",
    ]


def as_json(found: Detected) -> dict[str, Any]:
    change = found.change and {"setting": found.change[0], "verify": _written(found.change[1])}
    return {
        "ok": found.ok,
        "fits": found.fitting,
        "change": change,
        "providers": found.providers,
        "verify": _written(found.spec) if found.spec else None,
        "notes": found.notes,
    }


def _single_setting(spec: VerifySpec, setting: str) -> dict[str, Any]:
    """The one setting, at its place in the stanza."""
    whole = _written(spec)
    outer, _, inner = setting.partition(".")
    value = whole.get(outer)
    return {outer: {inner: value.get(inner)} if inner and isinstance(value, dict) else value}


def _written(spec: VerifySpec) -> dict[str, Any]:
    """A scheme as in `verify:`, without the defaults."""
    signature = spec.signature
    stanza: dict[str, Any] = {"type": spec.type, "key": _one_or_list(spec.key)}
    stanza["signature"] = {
        "in": _places(signature.places),
        "split": signature.split,
        "prefix": signature.prefix,
        "encoding": signature.encoding,
    }
    if spec.timestamp is not None:
        place = _places(spec.timestamp.places) if spec.timestamp.places else "signature"
        stanza["timestamp"] = {"in": place, "prefix": spec.timestamp.prefix}
    stanza |= {"id": _places(spec.id), "signed": spec.signed}
    return _without_defaults(stanza)


def _without_defaults(written: dict[str, Any]) -> dict[str, Any]:
    kept = {name: _without_defaults(value) if isinstance(value, dict) else value for name, value in written.items()}
    return {name: value for name, value in kept.items() if value not in (None, "", [], {}, *_DEFAULTS.get(name, ()))}


def _places(places: Sequence[Place]) -> str | list[str]:
    return _one_or_list([f"{place.where}:{place.name}" for place in places])


def _one_or_list(values: Sequence[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else list(values)
