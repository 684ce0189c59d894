"""Mapping files → the rule set in force: what `bridge.rules` reads, checked by `bridge.sources`.

A scheme or a secret that can verify nothing is not an error in the file: it may be fixed at any minute, and the other
sources work. Such a source is off, like one without a secret: a warning, and 503 instead of a silent 401.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bridge import rules, sources
from bridge.errors import ProblemsError
from bridge.model import Destination, Source
from bridge.text import listing

if TYPE_CHECKING:
    from bridge.rules import RuleSet
    from bridge.settings import Settings


def load(
    files: Mapping[str, str], environ: Mapping[str, str], presets: Mapping[str, Any], *, folder: str = "mappings"
) -> RuleSet:
    """Compile a set of mapping files. Raises MappingError with all errors (see `rules.load`)."""
    read = rules.load(files, environ, presets, folder=folder)
    judged = {name: judge(source) for name, source in read.sources.items()}
    warnings = [
        f"{read.mappings[name].secret_place}: {sentence}"
        for name, (_, found) in sorted(judged.items())
        for sentence in found
    ]
    found = {name: source for name, (source, _) in judged.items()}
    return replace(
        read,
        sources=found,
        warnings=(*read.warnings, *warnings, *_shared(read, found)),
        problems=tuple(_problems(read, found)),
    )


def destinations(settings: Settings, rule_set: RuleSet | None = None) -> dict[str, Destination]:
    """Every destination by its name: `default`, `test` if it has a key, and those of the mapping files."""
    found = {"default": Destination("default", settings.datafast_api_key, settings.datafast_website_id)}
    if settings.datafast_test_api_key:
        found["test"] = Destination("test", settings.datafast_test_api_key)
    return {**found, **(rule_set.destinations if rule_set else {})}


def from_preset(name: str, provider: str, environ: Mapping[str, str]) -> Source | None:
    """A source made from its provider's preset, for stored events whose mapping file is gone; None without a preset."""
    text = f"provider: {json.dumps(provider)}\ngoals: []\n"
    try:
        return load({f"{name}.yaml": text}, environ, sources.presets()).sources[name]
    except ProblemsError:
        return None


def _problems(read: RuleSet, found: Mapping[str, Source]) -> Iterator[str]:
    """Values that are not usable secrets, with their place; and the consequence if no other can verify."""
    for name, source in sorted(found.items()):
        off = source.secret_problems and source.secret_error
        for sentence in [source.secret_error] if off else source.secret_problems:
            yield f"{read.mappings[name].secret_place}: {sentence}"


def _shared(read: RuleSet, found: Mapping[str, Source]) -> Iterator[str]:
    """Sources that share a secret: whatever is signed for one of them is authentic at the others."""
    by_secret: dict[str, list[str]] = {}
    for name, source in sorted(found.items()):
        for secret in source.secrets:
            by_secret.setdefault(secret.strip(), []).append(name)
    for names in dict.fromkeys(tuple(names) for names in by_secret.values() if len(names) > 1):
        yield (
            f"{read.mappings[names[0]].secret_place}: {listing(list(names))} have the same secret, so that what is"
            " signed for one of them is accepted at the other: give each a secret of its own"
        )


def judge(source: Source) -> tuple[Source, tuple[str, ...]]:
    """The source, switched off if nothing can ever verify, and the warnings for its owner."""
    found = sources.problems(source)
    if not source.secrets or sources.can_verify(source):
        return source, found
    problem = f"{'; '.join(found)}; so nothing can be verified and POST /webhooks/{source.name} answers 503"
    return replace(source, secrets=(), secret_error=problem), (problem,)
