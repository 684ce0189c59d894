"""Mapping files → the rule set in force: what `bridge.rules` reads, and what `bridge.sources` says of its senders.

A scheme or a secret that can verify nothing is no fault of a file: it may be mended any minute, and the other sources
work. Such a source is off like one whose secret is not set: a warning, and 503 instead of a silent 401.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bridge import rules, sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Source
    from bridge.rules import RuleSet


def load(
    files: Mapping[str, str], environ: Mapping[str, str], presets: Mapping[str, Any], *, folder: str = "mappings"
) -> RuleSet:
    """Compile a set of mapping files; MappingError holds all faults (see `rules.load`)."""
    read = rules.load(files, environ, presets, folder=folder)
    judged = {name: judge(source) for name, source in read.sources.items()}
    warnings = [
        f"{read.mappings[name].secret_place}: {sentence}"
        for name, (_, found) in sorted(judged.items())
        for sentence in found
    ]
    return replace(
        read,
        sources={name: source for name, (source, _) in judged.items()},
        warnings=(*read.warnings, *warnings),
    )


def judge(source: Source) -> tuple[Source, tuple[str, ...]]:
    """The source, off where nothing can ever verify; and what its owner should be told."""
    found = sources.faults(source)
    if not source.secrets or sources.can_verify(source):
        return source, found
    fault = f"{'; '.join(found)}; so nothing can be verified and POST /webhooks/{source.name} answers 503"
    return replace(source, secrets=(), secret_fault=fault), (fault,)
